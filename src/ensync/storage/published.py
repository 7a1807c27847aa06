"""The datasets published under a name: where, under which checksums, by whom, on which terms."""

from dataclasses import dataclass

DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class Published:
    """One published dataset; `files` maps the name of each file to its published MD5."""

    title: str
    url: str
    files: dict[str, str]
    source: str
    licence: str
    class_names: tuple[str, ...]


PUBLISHED: dict[str, Published] = {
    "mnist": Published(
        title="MNIST",
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        files={
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        source="MNIST: Y. LeCun, C. Cortes, C. J. C. Burges, http://yann.lecun.com/exdb/mnist/",
        licence="CC BY-SA 3.0",
        class_names=DIGITS,
    ),
    "fashion-mnist": Published(
        title="Fashion-MNIST",
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        files={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        source="Fashion-MNIST: H. Xiao, K. Rasul, R. Vollgraf (Zalando SE) 2017, "
        "https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
        class_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    ),
    "cifar-10": Published(
        title="CIFAR-10",
        url="https://www.cs.toronto.edu/~kriz/",
        files={"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
        source="CIFAR-10: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, "
        "2009, https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="no formal licence; its authors ask to be cited",
        class_names=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
    ),
}

CIFAR10_BATCHES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}


def other_owner(name: str, file_name: str, md5: str) -> str | None:
    """Return the title of the dataset, other than `name`, that publishes `file_name` with this
    MD5; None when there is none.
    """
    for other, published in PUBLISHED.items():
        if other != name and published.files.get(file_name) == md5:
            return published.title
    return None
