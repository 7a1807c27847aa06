"""CSV files come in to the value, however they are written; what is guessed is told, what is
doubtful refused; bad rows are named by line.
"""

import csv
import io

import numpy as np
import pytest
from samples import csv_lines as lines_of
from samples import pictures, write_csv

from ensync.core.errors import EnsyncError
from ensync.storage.sources import csv_lines
from ensync.storage.sources.csv import read_csv
from ensync.storage.sources.csv_look import TableOptions

PIXELS, LABELS = pictures(60, 4, 4, 1, 7).reshape(60, 16), [row % 5 for row in range(60)]
NAMES = [f"pixel{place}" for place in range(16)]


def table(
    path,
    header=None,
    label=0,
    index=False,
    labels=LABELS,
    pixels=PIXELS,
    encoding="utf-8",
    **options,
):
    """Write a table as pandas' to_csv does; label: where its column stands, from 0 or the end;
    header: names with the label's in place.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", **options)
    if header:
        writer.writerow([""] * index + list(header))
    for number, (digit, row) in enumerate(zip(labels, np.asarray(pixels).tolist(), strict=True)):
        row.insert(len(row) if label == -1 else label, digit)
        writer.writerow([number] * index + row)
    path.write_bytes(out.getvalue().encode(encoding))
    return path


def named(label, name="label"):
    """The header of a table with the label at that place."""
    names = list(NAMES)
    names.insert(len(names) if label == -1 else label, name)
    return names


def check(source, labels=LABELS, pixels=PIXELS, classes=("0", "1", "2", "3", "4")):
    assert np.array_equal(source.images["train"].reshape(len(labels), -1), pixels)
    assert [source.class_names[number] for number in source.labels["train"]] == [
        str(label) for label in labels
    ]
    assert tuple(source.class_names) == tuple(classes)


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize(("side", "channels"), [(4, 1), (3, 3), (28, 1)])
def test_labels_and_pixels_come_in_to_the_value(tmp_path, side, channels, header):
    images, labels = write_csv(tmp_path / "table.csv", 30, side, channels, header)
    source = read_csv(tmp_path / "table.csv")
    assert (
        np.array_equal(source.images["train"], images) and source.images["train"].dtype == np.uint8
    )
    assert source.labels["train"].tolist() == labels and source.labels["train"].dtype == np.int64
    assert source.class_names == ["0", "1", "2"] and list(source.images) == ["train"]
    place = "column 1 ('label')" if header else "column 1"
    colour = "grey" if channels == 1 else "colour, red, green and blue of each pixel together"
    assert source.notes == [
        f"table.csv is read with commas between columns, {'a' if header else 'no'} header, the "
        f"label in {place}, "
        f"{side} x {side} pixels, {colour}, values 0 to 255"
    ]


# name: (how it is written, what the note says of it)
WRITTEN = {
    "numbers for names": ({"header": range(17)}, "a header, the label in column 1 ('0')"),
    "numbers, label last": ({"header": [*range(16), "label"], "label": -1}, "column 17 ('label')"),
    "index in front": (
        {"header": named(0), "index": True},
        "column 2 ('label'), column 1 left out as an index",
    ),
    "index, numbers": (
        {"header": range(17), "index": True},
        "column 2 ('0'), column 1 left out as an index",
    ),
    "index, no header": (
        {"index": True},
        "no header, the label in column 2, column 1 left out as an index",
    ),
    "Unnamed: 0": (
        {"header": ["Unnamed: 0", *named(-1)], "label": -1, "index": "as a column"},
        "column 1 ('Unnamed: 0') left out",
    ),
    "class last": ({"header": named(-1, "class"), "label": -1}, "column 17 ('class')"),
    "Target in the middle": ({"header": named(5, "Target"), "label": 5}, "column 6 ('Target')"),
    "y": ({"header": named(-1, "y"), "label": -1}, "column 17 ('y')"),
    "another name": (
        {"header": named(-1, "what it shows"), "label": -1},
        "column 17 ('what it shows')",
    ),
    "semicolons": ({"delimiter": ";"}, "semicolons between columns"),
    "tabs": ({"delimiter": "\t", "header": named(0)}, "tabs between columns"),
    "blanks": ({"delimiter": " "}, "blanks between columns"),
    "all quoted": ({"quoting": csv.QUOTE_ALL, "header": named(0)}, "column 1 ('label')"),
    "UTF-16": ({"encoding": "utf-16", "header": named(0)}, "column 1 ('label')"),
    "UTF-8 with a mark": ({"encoding": "utf-8-sig", "header": named(0)}, "column 1 ('label')"),
    "floats": ({"pixels": PIXELS.astype(float)}, "values 0 to 255"),
}


@pytest.mark.parametrize("way", WRITTEN)
def test_each_way_to_write_a_table_is_read_right_and_told(tmp_path, way):
    options, told = WRITTEN[way]
    if options.get("index") == "as a column":
        table(tmp_path / "table.csv", **{**options, "header": None, "index": True})
        body = (tmp_path / "table.csv").read_text()
        (tmp_path / "table.csv").write_text(",".join(options["header"]) + "\n" + body)
    else:
        table(tmp_path / "table.csv", **options)
    source = read_csv(tmp_path / "table.csv")
    check(source)
    assert told in source.notes[0] and len(source.notes) == 1


def test_lines_with_a_delimiter_at_their_end_and_words_for_labels(tmp_path):
    words = [("cat, tabby", "dog", "Übung")[row % 3] for row in range(60)]
    path = table(tmp_path / "table.csv", header=[*NAMES, "animal"], label=-1, labels=words)
    check(read_csv(path), words, classes=("cat, tabby", "dog", "Übung"))
    path.write_text("".join(line + ",\r\n\r\n" for line in path.read_text().splitlines()))
    source = read_csv(path)
    check(source, words, classes=("cat, tabby", "dog", "Übung"))
    assert "column 17 ('animal') (words)" in source.notes[0]
    path.write_bytes(path.read_bytes().replace("Übung".encode(), b"", 1))
    with pytest.raises(
        EnsyncError, match="1 of 60 rows of table.csv are bad: line 7 lacks value 17"
    ):
        read_csv(path)


def test_any_spelling_of_the_numbers_and_lines_will_do(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbf1, 0,255.0,  7 ,1e1\r\n\r\n\n9,1,2,3,4\r\n9,4,3,2,1")
    source = read_csv(path)
    assert source.images["train"].reshape(3, 4).tolist() == [
        [0, 255, 7, 10],
        [1, 2, 3, 4],
        [4, 3, 2, 1],
    ]
    assert source.labels["train"].tolist() == [0, 1, 1] and source.class_names == ["1", "9"]


@pytest.mark.parametrize("whole", [False, True])
def test_values_from_0_to_1_are_shares_of_255(tmp_path, whole):
    """Where the first pieces hold only 0 and 1, what comes later decides."""
    shares = np.round(PIXELS / 255, 6)
    shares[:30] = PIXELS[:30] > 127
    if whole:
        shares[30:] = PIXELS[30:] > 127
    path = table(tmp_path / "table.csv", pixels=shares.astype(int) if whole else shares)
    source = read_csv(path)
    check(source, pixels=np.rint(shares * 255))
    assert (
        "values 0 to 1 taken as shares of 255" in source.notes[0]
        and source.preparation["pixels"] == "0..1 times 255"
    )
    path.write_text(path.read_text() + ",".join(["1"] * 16 + ["2"]) + "\n")
    if not whole:
        with pytest.raises(
            EnsyncError, match="line 61 has '2' as value 17, which is not a number from 0 to 1"
        ):
            read_csv(path)


@pytest.mark.parametrize("kind", ["digits", "noise", "sparse", "binary"])
def test_no_way_to_write_a_table_is_read_wrong(tmp_path, kind):
    """Wherever the label is, at an end or by its name, and whatever the pixels look like, the
    table is read right or refused; most are read.
    """
    draw, wrong, refused = np.random.default_rng(3), 0, 0
    for trial in range(60):
        rows, classes = int(draw.integers(20, 80)), int(draw.integers(2, 9))
        pixels = {
            "digits": lambda: draw.integers(0, 17, (rows, 16)) * (draw.random(16) < 0.8),
            "noise": lambda: draw.integers(0, 256, (rows, 16)),
            "sparse": lambda: draw.integers(0, 256, (rows, 16)) * (draw.random((rows, 16)) < 0.1),
            "binary": lambda: 255 * draw.integers(0, 2, (rows, 16)),
        }[kind]()
        labels = draw.integers(0, classes, rows).tolist()
        label = int(draw.choice([0, -1, 5]))
        header = [None, range(17), named(label, "class"), named(label, "shown")][
            trial % 4 if label != 5 else 2 + trial % 2
        ]
        path = table(
            tmp_path / "table.csv",
            header,
            label,
            bool(trial % 3 == 0),
            labels,
            pixels,
            delimiter=str(draw.choice([",", ";", "\t"])),
        )
        try:
            source = read_csv(path)
        except EnsyncError:
            refused += 1
            continue
        found = [source.class_names[number] for number in source.labels["train"]]
        wrong += not (
            found == [str(each) for each in labels]
            and np.array_equal(source.images["train"].reshape(rows, 16), pixels)
        )
    assert wrong == 0 and refused < 40


@pytest.mark.parametrize(
    ("options", "header", "label"),
    [
        (TableOptions(label="-1"), None, -1),
        (TableOptions(label="17"), range(17), -1),
        (TableOptions(label="16"), range(17), -1),
        (TableOptions(label="6"), None, 5),
        (TableOptions(label="what"), named(3, "what"), 3),
        (TableOptions(label="LABEL"), named(3), 3),
        (TableOptions(header="yes"), named(0), 0),
        (TableOptions(label="1", header="no", delimiter="comma", shape="4x4"), None, 0),
    ],
)
def test_given_columns_are_taken(tmp_path, options, header, label):
    check(read_csv(table(tmp_path / "table.csv", header, label), options=options))


def test_shapes_other_than_squares_and_planes_of_one_colour(tmp_path):
    path = table(tmp_path / "table.csv", pixels=PIXELS[:, :12])
    assert np.array_equal(
        read_csv(path, options=TableOptions(shape="4x3")).images["train"],
        PIXELS[:, :12].reshape(60, 4, 3, 1),
    )
    assert np.array_equal(
        read_csv(path, options=TableOptions(shape="2x2x3")).images["train"],
        PIXELS[:, :12].reshape(60, 2, 2, 3),
    )
    planes = read_csv(path, options=TableOptions(shape="3x2x2"))
    assert np.array_equal(
        planes.images["train"], PIXELS[:, :12].reshape(60, 3, 2, 2).transpose(0, 2, 3, 1)
    )
    assert "planes of red, green and blue" in planes.notes[0]


# name: (how it is written, what is given, what the sentence says)
DOUBTFUL = {
    "label last, all 0 or 1": (
        {"label": -1, "labels": [row // 3 % 2 for row in range(60)], "pixels": (PIXELS > 127) * 1},
        TableOptions(),
        ["--label"],
    ),
    "label last": (
        {"label": -1},
        TableOptions(),
        [
            "column 1 has 5",
            "different values in 60 rows and column 17 has 5 different values",
            "--label",
        ],
    ),
    "two could be": (
        {"pixels": np.c_[PIXELS[:, 1:], np.arange(60) % 4]},
        TableOptions(),
        ["column 1 has 5 different", "column 17 has 4 different", "--label"],
    ),
    "two are named": (
        {"header": ["label", "class", *NAMES[1:]]},
        TableOptions(),
        ["2 columns named as labels are", "column 1 ('label') and column 2 ('class')"],
    ),
    "too many labels": (
        {"header": named(0), "labels": range(100, 160)},
        TableOptions(),
        ["column 1 ('label')", "60 different values in 60 rows", "--label 1"],
    ),
    "no labels": (
        {"header": NAMES, "labels": PIXELS[:, 0], "pixels": PIXELS[:, 1:]},
        TableOptions(),
        ["16 columns", "a picture and no label"],
    ),
    "no labels, no header": (
        {"labels": PIXELS[:, 0], "pixels": PIXELS[:, 1:]},
        TableOptions(),
        ["a picture and no label"],
    ),
    "no square": (
        {"pixels": PIXELS[:, :14]},
        TableOptions(),
        ["15 columns", "such as 785", "such as --shape 7x2"],
    ),
    "one column too many": (
        {"pixels": np.c_[PIXELS, PIXELS[:, 0]]},
        TableOptions(),
        ["18 columns", "one too many"],
    ),
    "sorted as words": (
        {"header": ["label", *sorted(NAMES)]},
        TableOptions(),
        ["not in order", "'pixel2' comes after 'pixel15'"],
    ),
    "colour by colour": (
        {
            "header": ["label", *(f"{c}{n}" for c in "rgb" for n in range(4))],
            "pixels": PIXELS[:, :12],
        },
        TableOptions(),
        ["all columns like column 2 ('r0') before those like column 6 ('g0')", "--shape 3x2x2"],
    ),
    "decimal commas": (
        {"delimiter": ";", "pixels": [[f"0,{v}" for v in row] for row in PIXELS.tolist()]},
        TableOptions(),
        ["decimal point"],
    ),
    "fractions": (
        {"pixels": PIXELS + 0.5},
        TableOptions(),
        ["no usable row", "not a whole number from 0 to 255"],
    ),
    "below 0": ({"pixels": PIXELS / 127.5 - 1}, TableOptions(), ["which is not"]),
    "label 0": ({}, TableOptions(label="0"), ["--label 0", "a number from 1 to 17 or -1 to -17"]),
    "label unknown": (
        {"header": named(0)},
        TableOptions(label="digits"),
        ["--label digits", "label, pixel0, pixel1, ... pixel15"],
    ),
    "shape": ({}, TableOptions(shape="5x4"), ["--shape 5x4 has 20 values", "16 columns of pixels"]),
    "shape of words": ({}, TableOptions(shape="big"), ["--shape big", "--shape 28x28"]),
    "delimiter": ({}, TableOptions(delimiter="::"), ["--delimiter '::'", "semicolon"]),
    "UTF-16 without a mark": (
        {"encoding": "utf-16-le"},
        TableOptions(),
        ["not UTF-8", "save it again, as UTF-8"],
    ),
    "words in Latin-1": (
        {"labels": ["Käse", "Öl"] * 30, "encoding": "latin-1"},
        TableOptions(),
        ["no class name in UTF-8 (save the table again, as UTF-8)"],
    ),
    "UTF-32": ({"encoding": "utf-32"}, TableOptions(), ["not UTF-8"]),
}


@pytest.mark.parametrize("way", DOUBTFUL)
def test_what_is_doubtful_is_refused_with_the_option_that_settles_it(tmp_path, way):
    written, options, parts = DOUBTFUL[way]
    path = table(tmp_path / "table.csv", **written)
    with pytest.raises(EnsyncError) as caught:
        read_csv(path, options=options)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("first", "sentence"),
    [
        (
            "0,1,2,3,4",
            "may be names or a picture; expected one of them; say which with --header yes or "
            "--header no",
        ),
        ("3,0,0.1,0.2,0.3", "seems to be a picture that was once read as a header"),
    ],
)
def test_a_first_line_that_may_be_either_is_refused(tmp_path, first, sentence):
    path = tmp_path / "table.csv"
    path.write_text(first + "\n" + "1,0,0,9,9\n2,8,8,0,0\n" * 20)
    with pytest.raises(EnsyncError) as caught:
        read_csv(path)
    assert sentence in str(caught.value)
    assert len(read_csv(path, options=TableOptions(header="yes")).labels["train"]) == 40


@pytest.mark.parametrize("head", [b"\x1f\x8b\x08\x00", b"PK\x03\x04"])
def test_packed_files_and_spreadsheets_are_named(tmp_path, head):
    (tmp_path / "table.csv").write_bytes(head + bytes(range(200)))
    with pytest.raises(EnsyncError, match="is packed with (gzip|zip)"):
        read_csv(tmp_path / "table.csv")


BAD = {
    "5,1,2,3": "line 4 has 4 values instead of 5",
    "5,1,2,3,4,5": "line 4 has 6 values instead of 5",
    "5,1,,3,4": "line 4 lacks value 3",
    "5,1,x y,3,4": "line 4 has 'x y' as value 3, which is not a number",
    "5,1,nan,3,4": "line 4 has 'nan' as value 3, which is not a number",
    "5,1,256,3,4": "line 4 has '256' as value 3, which is not a whole number from 0 to 255",
    "5,1,-1,3,4": "line 4 has '-1' as value 3, which is not a whole number from 0 to 255",
    "5,1,0.5,3,4": "line 4 has '0.5' as value 3",
    "-1,1,2,3,4": "line 4 has '-1' as value 1, which is not a whole number from 0 to 65535",
    "cat,1,2,3,4": "line 4 has 'cat' as value 1, which is not a number",
    "1_0,1,2,3,4": "line 4 is not a row of numbers",
    "\x00,1,2,3,4": "line 4 has '\\x00' as value 1",
    '"5,1,2",3,4': "line 4 has 3 values instead of 5",
}


@pytest.mark.parametrize("row", BAD)
def test_a_bad_row_is_refused_by_line_or_skipped_on_request(tmp_path, row):
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["label,a,b,c,d", "1,1,2,3,4", "2,1,2,3,4", row, "1,5,6,7,8"]))
    with pytest.raises(EnsyncError) as caught:
        read_csv(path)
    assert "1 of 4 rows of table.csv are bad" in str(caught.value) and BAD[row] in str(caught.value)
    source = read_csv(path, "skip")
    assert source.images["train"].reshape(3, 4).tolist() == [
        [1, 2, 3, 4],
        [1, 2, 3, 4],
        [5, 6, 7, 8],
    ]
    assert (
        len(source.notes) == 2
        and "1 of 4 rows of table.csv left out" in source.notes[1]
        and BAD[row] in source.notes[1]
    )


def test_all_bad_rows_are_counted_and_the_first_few_named_across_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_lines, "PIECE", 300)
    images = pictures(200, 4, 4, 1)
    lines = lines_of(images, [row % 5 for row in range(200)])
    bad = [7, 50, 51, 120, 180, 181, 199]
    for place in bad:
        lines[place] = lines[place].replace(",", ",q", 1)
    (tmp_path / "table.csv").write_text("\r\n".join(lines))
    note = read_csv(tmp_path / "table.csv", "skip").notes[1]
    assert note.startswith("7 of 200 rows of table.csv left out: line 8 has 'q")
    assert all(f"line {place + 1} " in note for place in bad[:5]) and note.endswith("and 2 more")
    assert np.array_equal(
        read_csv(tmp_path / "table.csv", "skip").images["train"], np.delete(images, bad, axis=0)
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("\n\n\n", "is empty"),
        ("1,2,3\n1,2,3\n", "has 3 columns"),
        ("1:2:3:4:5\n", "has 1 columns"),
        ("a,b,c,d,e\n", "has no usable row: it is empty"),
        ("x,1,2,3,400\n", "has no usable row: line 1 has '400' as value 5"),
    ],
)
def test_what_is_no_table_of_pictures_has_its_sentence(tmp_path, text, sentence):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(EnsyncError) as caught:
        read_csv(tmp_path / "table.csv", "skip")
    assert sentence in str(caught.value) and "table.csv" in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ("train.csv", "Test.CSV"),
        ("mnist_train.csv", "mnist_test.csv"),
        ("fashion-mnist_train.csv", "fashion-mnist_test.csv"),
    ],
)
def test_a_directory_may_hold_the_splits(tmp_path, names):
    train, test, own = (
        write_csv(tmp_path / name, rows)
        for name, rows in zip([*names, "Val.csv"], (30, 12, 9), strict=True)
    )
    write_csv(tmp_path / "more.csv", 6)
    source = read_csv(tmp_path)
    for split, (images, labels) in {"train": train, "test": test, "validation": own}.items():
        assert (
            np.array_equal(source.images[split], images) and source.labels[split].tolist() == labels
        )
    assert source.notes[1:] == ["1 other tables left out: more.csv"]


def test_another_table_must_have_the_columns_of_the_training_table(tmp_path):
    table(tmp_path / "train.csv", named(0))
    table(tmp_path / "own.csv", named(-1), label=-1, delimiter=";")
    source = read_csv(tmp_path / "train.csv", validation=tmp_path / "own.csv")
    assert (
        np.array_equal(source.images["validation"], source.images["train"])
        and len(source.notes) == 2
    )
    table(tmp_path / "own.csv", ["label", *NAMES[1:], NAMES[0]])
    with pytest.raises(
        EnsyncError, match="own.csv has other columns than the training table, or in another order"
    ):
        read_csv(tmp_path / "train.csv", validation=tmp_path / "own.csv")
    table(tmp_path / "test.csv", NAMES, labels=PIXELS[:, 0], pixels=PIXELS[:, 1:])
    with pytest.raises(
        EnsyncError,
        match="test.csv has 16 columns where the training table has 17: it seems to lack the "
        "labels",
    ):
        read_csv(tmp_path)


def test_a_test_file_with_other_columns_is_refused(tmp_path):
    write_csv(tmp_path / "train.csv", 10, 4)
    write_csv(tmp_path / "test.csv", 10, 3)
    with pytest.raises(
        EnsyncError, match=r"test.csv has no usable row: line 1 has 10 values instead of 17"
    ):
        read_csv(tmp_path)


def test_an_endless_line_and_missing_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_lines, "LONGEST_LINE", 1000)
    (tmp_path / "table.csv").write_text("1,2,3,4,5," * 200)
    with pytest.raises(EnsyncError, match="line 1 is longer than 1000 bytes"):
        read_csv(tmp_path)
    with pytest.raises(EnsyncError, match="does not exist"):
        read_csv(tmp_path / "nowhere.csv")
    (tmp_path / "table2.csv").touch()
    with pytest.raises(EnsyncError, match="has no train.csv"):
        read_csv(tmp_path)
