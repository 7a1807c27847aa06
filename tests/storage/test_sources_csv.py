"""CSV files come in to the value; each bad row is counted and named by its line."""

import numpy as np
import pytest
from samples import csv_lines, pictures, write_csv

from ensync.errors import EnsyncError
from ensync.storage.sources import csv, read_csv


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize(("side", "channels"), [(4, 1), (3, 3), (28, 1)])
def test_labels_and_pixels_come_in_to_the_value(tmp_path, side, channels, header):
    images, labels = write_csv(tmp_path / "table.csv", 30, side, channels, header)
    source = read_csv(tmp_path / "table.csv")
    assert np.array_equal(source.images["train"], images) and source.images["train"].dtype == np.uint8
    assert source.labels["train"].tolist() == labels and source.labels["train"].dtype == np.int64
    assert source.class_names == ["0", "1", "2"] and source.notes == [] and list(source.images) == ["train"]


@pytest.mark.parametrize("names", [("train.csv", "test.csv"), ("mnist_train.csv", "mnist_test.csv"), ("fashion-mnist_train.csv", "fashion-mnist_test.csv")])
def test_a_directory_may_hold_both_splits(tmp_path, names):
    train, test = (write_csv(tmp_path / name, rows) for name, rows in zip(names, (30, 12), strict=True))
    source = read_csv(tmp_path)
    assert np.array_equal(source.images["train"], train[0]) and np.array_equal(source.images["test"], test[0])


def test_any_spelling_of_the_numbers_and_lines_will_do(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbf1, 0,255.0,  7 ,1e1\r\n\r\n\n9,1,2,3,4\r\n9,4,3,2,1")
    source = read_csv(path)
    assert source.images["train"].reshape(3, 4).tolist() == [[0, 255, 7, 10], [1, 2, 3, 4], [4, 3, 2, 1]]
    assert source.labels["train"].tolist() == [0, 1, 1] and source.class_names == ["1", "9"]


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
}


@pytest.mark.parametrize("row", BAD)
def test_a_bad_row_is_refused_by_line_or_skipped_on_request(tmp_path, row):
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["label,a,b,c,d", "1,1,2,3,4", "2,1,2,3,4", row, "1,5,6,7,8"]))
    with pytest.raises(EnsyncError) as caught:
        read_csv(path)
    assert "1 of 4 rows of table.csv are bad" in str(caught.value) and BAD[row] in str(caught.value)
    source = read_csv(path, "skip")
    assert source.images["train"].reshape(3, 4).tolist() == [[1, 2, 3, 4], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert len(source.notes) == 1 and "1 of 4 rows of table.csv left out" in source.notes[0] and BAD[row] in source.notes[0]


def test_all_bad_rows_are_counted_and_the_first_few_named_across_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "PIECE", 300)
    images = pictures(200, 4, 4, 1)
    lines = csv_lines(images, [row % 5 for row in range(200)])
    bad = [7, 50, 51, 120, 180, 181, 199]
    for place in bad:
        lines[place] = lines[place].replace(",", ",q", 1)
    (tmp_path / "table.csv").write_text("\r\n".join(lines))
    source = read_csv(tmp_path / "table.csv", "skip")
    assert source.notes[0].startswith("7 of 200 rows of table.csv left out: line 8 has 'q")
    assert all(f"line {place + 1} " in source.notes[0] for place in bad[:5]) and source.notes[0].endswith("and 2 more")
    assert np.array_equal(source.images["train"], np.delete(images, bad, axis=0))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("\n\n\n", "is empty"),
        ("1,2,3\n1,2,3\n", "has 3 columns"),
        ("1;2;3;4;5\n", "has 1 columns"),
        ("a,b,c,d,e\n", "has no usable row: it is empty"),
        ("x,1,2,3,4\n", "has no usable row: line 1 has 'x' as value 1"),
        ("a,b,c,d,label\n1,2,3,4,5\n", "has its label in column 5"),
    ],
)
def test_what_is_no_table_of_pictures_has_its_sentence(tmp_path, text, sentence):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(EnsyncError) as caught:
        read_csv(tmp_path / "table.csv", "skip")
    assert sentence in str(caught.value) and "table.csv" in str(caught.value)


def test_a_test_file_with_other_columns_is_refused(tmp_path):
    write_csv(tmp_path / "train.csv", 10, 4)
    write_csv(tmp_path / "test.csv", 10, 3)
    with pytest.raises(EnsyncError, match=r"test.csv has no usable row: line 1 has 10 values instead of 17"):
        read_csv(tmp_path)


def test_an_endless_line_and_missing_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "LONGEST_LINE", 1000)
    (tmp_path / "table.csv").write_text("1,2,3,4,5," * 200)
    with pytest.raises(EnsyncError, match="line 1 is longer than 1000 bytes"):
        read_csv(tmp_path)
    with pytest.raises(EnsyncError, match="does not exist"):
        read_csv(tmp_path / "nowhere.csv")
    (tmp_path / "table2.csv").touch()
    with pytest.raises(EnsyncError, match="has no train.csv"):
        read_csv(tmp_path)
