import csv
import json
import os
import unicodedata

import pytest

from headwater.data import open_examples
from headwater.data.folder import folder
from headwater.errors import DataError, DataWarning


@pytest.fixture
def captions(tmp_path, put):
    """Two images, `a.png` and `cat/b.png`, and a `metadata.jsonl` of these lines: objects, or raw text."""
    put("a.png")
    put("cat/b.png")

    def write(*lines):
        text = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
        (tmp_path / "metadata.jsonl").write_text("\n".join(text), encoding="utf-8")
        return tmp_path

    return write


A, B = (
    {"file_name": "a.png", "text": "a red car"},
    {"file_name": "cat/b.png", "text": "ein Käfer, zwei\u2028Zeilen"},
)


def test_captions_are_found_by_file_name_in_any_order(captions):
    assert folder(captions(B, A)).prompts == (A["text"], B["text"])


def test_a_folder_without_the_file_has_no_prompts(tmp_path, put):
    put("a.png")
    assert folder(tmp_path).prompts is None


def test_classes_and_captions_go_together(captions, tmp_path):
    captions({"file_name": "dog/c.png", "text": "a dog"}, B)
    (tmp_path / "dog").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "dog" / "c.png")
    examples = folder(tmp_path)
    assert examples.groups == ("cat", "dog") and examples.prompts == (B["text"], "a dog")


@pytest.mark.parametrize("name", ["text", "prompt", "caption"])
def test_the_column_may_have_any_of_three_names_and_others_are_not_read(captions, name):
    lines = [
        {"file_name": file, name: f"a {file}", "width": 4, "tags": ["x"]} for file in ("a.png", "cat/b.png")
    ]
    assert folder(captions(*lines)).prompts == ("a a.png", "a cat/b.png")


def test_of_several_columns_of_captions_one_is_read(captions):
    assert folder(captions(A | {"caption": "1"}, B | {"caption": "2"})).prompts == ("1", "2")


def test_blank_lines_and_paths_from_the_folder_itself_are_fine_and_a_caption_may_be_empty(captions):
    assert folder(captions("", {"file_name": "./a.png", "text": ""}, "  ", B, "")).prompts == ("", B["text"])


def test_a_byte_order_mark_and_windows_line_ends_are_fine(captions, tmp_path):
    captions(A, B)
    text = (tmp_path / "metadata.jsonl").read_bytes()
    (tmp_path / "metadata.jsonl").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    assert folder(tmp_path).prompts == (A["text"], B["text"])


def test_resizing_keeps_captions(captions):
    assert open_examples(captions(A, B), resize=2).prompts == (A["text"], B["text"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            [A],
            r"no line for 1 of the 2 images, the first cat/b\.png; expected one for each\. Add .*, or remove",
        ),
        ([A, A, B], r"line 2, is a second line for a\.png; expected one for each image\. Keep one"),
        ([A, B, A | {"file_name": "./a.png"}], r"line 3, is a second line for a\.png"),
        (
            [A, B, A | {"file_name": "c.png"}],
            r"lines for 1 images that are not in the folder, the first c\.png; expected paths",
        ),
        (
            [A, "", "{'file_name': 1}"],
            r"line 3, is not JSON \(Expecting .*\): \{'file_name': 1\}\. Expected an object on one line",
        ),
        ([A, "[" * 100_000], "line 2, is not JSON"),
        (["[1]"], r"line 1, is \[1\]; expected a JSON object such as"),
        ([A, {"text": "a car"}], r"line 2, has no `file_name`; expected the path of an image"),
        ([A, {"file_name": 7, "text": "a car"}], r"line 2, has the `file_name` 7; expected the path"),
        (
            [{"file_name": "a.png", "title": "x"}],
            r"its columns are `file_name`, `title`; expected `caption` or `prompt` or `text`",
        ),
        ([], "its columns are none; expected"),
        ([A, B | {"text": None}], r"line 2, has the `text` null; expected text\. Write one, or \"\""),
        ([A, B | {"text": ["one", "two"]}], r'line 2, has the `text` \["one", "two"\]; expected text'),
        ([A, {"file_name": "cat/b.png", "caption": "x"}], r"line 1, has no `caption`; expected text"),
        (
            [A | {"group": "x"}, B],
            r"line 2, has no `group`; expected text\. Write one, or \"\" for an image without a group",
        ),
        ([A | {"group": 1}, B | {"group": "x"}], r"line 1, has the `group` 1; expected text"),
        (['{"file_name": "a.png", "text": "x", "text": "y"}'], r"line 1, has more than one entry `text`"),
        (['{"file_name": "a.png", "text": "\\ud800"}'], r"line 1, has the `text` \"\\ud800\"; expected text"),
    ],
)
def test_an_error_names_the_value_and_the_expected_one(captions, lines, message):
    with pytest.raises(DataError, match=message) as caught:
        folder(captions(*lines))
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


def test_words_under_group_or_label_replace_the_subfolders(captions):
    examples = folder(captions(A | {"group": "Monet", "label": 7}, B | {"group": "Hokusai", "label": 7}))
    assert (
        examples.groups == ("Monet", "Hokusai")
        and examples.labels is not None
        and examples.labels.tolist() == [7, 7]
    )
    assert examples.prompts == (A["text"], B["text"])


def test_groups_work_without_captions_and_an_image_without_a_group_has_no_label(captions):
    examples = folder(
        captions({"file_name": "a.png", "label": ""}, {"file_name": "cat/b.png", "label": "Monet"})
    )
    assert (
        examples.groups == ("", "Monet")
        and examples.labels is not None
        and examples.labels.tolist() == [-1, 0]
    )
    assert examples.prompts is None


def write_table(path, rows):
    """The rows as a table of the kind that the suffix names."""
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        pyarrow = pytest.importorskip("pyarrow")
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)


FORMATS = pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])


@FORMATS
@pytest.mark.parametrize("values", [(7, 3), ("7", "3"), (7.0, 3.0), ("7.0", "3")])
@pytest.mark.parametrize("caption", [{}, {"text": "x"}])
def test_whole_numbers_under_label_are_labels_in_every_format(tmp_path, put, suffix, values, caption):
    rows = [
        {"file_name": f"{name}.png", "label": value} | caption
        for name, value in zip("ab", values, strict=True)
    ]
    for name in "ab":
        put(f"{name}.png")
    write_table(tmp_path / f"metadata{suffix}", rows)
    examples = folder(tmp_path)
    assert examples.labels.tolist() == [7, 3] and examples.groups is None
    assert examples.prompts == (("x", "x") if caption else None)


@FORMATS
def test_labels_in_a_table_replace_the_subfolders_and_a_blank_one_is_none(tmp_path, put, suffix):
    rows = [{"file_name": "cat/a.png", "label": 5.0}, {"file_name": "dog/b.png", "label": None}]
    for row in rows:
        put(row["file_name"])
    write_table(tmp_path / f"metadata{suffix}", rows)
    examples = folder(tmp_path)
    assert examples.labels.tolist() == [5, -1] and examples.groups is None


@pytest.mark.parametrize("label", [0.5, -2, 2**63, "18446744073709551615", "1e300", 10**50, "0.25"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_label_that_is_no_whole_number_from_minus_one_is_refused(tmp_path, put, suffix, label):
    put("a.png")
    write_table(tmp_path / f"metadata{suffix}", [{"file_name": "a.png", "label": label}])
    with pytest.raises(DataError, match=r"`label` in .*metadata\..* holds .*; expected whole numbers from 0"):
        folder(tmp_path)


@FORMATS
def test_numbers_under_group_name_groups_and_are_their_labels(tmp_path, put, suffix):
    rows = [{"file_name": f"{name}.png", "group": group} for name, group in (("a", 10), ("b", 2))]
    for name in "ab":
        put(f"{name}.png")
    write_table(tmp_path / f"metadata{suffix}", rows)
    examples = folder(tmp_path)
    assert (examples.groups, examples.labels.tolist()) == (("10", "2"), [10, 2])


def test_words_under_label_beside_groups_are_not_read_and_that_is_said(captions):
    with pytest.warns(DataWarning, match=r"`label` of .* is not read: `group` names the groups"):
        examples = folder(captions(A | {"group": "x", "label": "p"}, B | {"group": "y", "label": "p"}))
    assert examples.groups == ("x", "y") and examples.labels.tolist() == [0, 1]


def test_a_template_reads_the_groups(captions):
    where = captions({"file_name": "a.png", "group": "Monet"}, {"file_name": "cat/b.png", "group": "Hokusai"})
    assert open_examples(where, caption="a painting by {group}").prompts == (
        "a painting by Monet",
        "a painting by Hokusai",
    )


def test_a_csv_file_gives_the_same(captions, tmp_path):
    examples = folder(captions(A | {"group": "x"}, B | {"group": "y"}))
    (tmp_path / "metadata.jsonl").unlink()
    rows = f'file_name,width,text,group\ncat/b.png,4,"{B["text"]}",y\na.png,4,{A["text"]},x\n'
    (tmp_path / "metadata.csv").write_text(rows, encoding="utf-8")
    assert (folder(tmp_path).prompts, folder(tmp_path).groups) == (examples.prompts, examples.groups)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"metadata\.csv has no captions: its columns are none"),
        ("file_name,text\na.png,x\ncat/b.png\n", r"line 3, has the `text` null; expected text"),
        ("file_name,text\na.png,x\n", r"no line for 1 of the 2 images, the first cat/b\.png"),
        ("file_name,text\na.png,a cat, asleep\n", r"line 2, has more cells than the 2 columns.*in quotes"),
        ("file_name,text,text\na.png,x,y\n", r"line 1, has more than one column `text`; expected one"),
        ("name,text\na.png,x\n", r"line 2, has no `file_name`"),
        (
            'file_name,text\na.png,"x',
            r"metadata\.csv is not a CSV file \(unexpected end of data\)\. Save it with commas",
        ),
    ],
)
def test_an_error_in_a_csv_file_names_it(tmp_path, put, text, message):
    put("a.png")
    put("cat/b.png")
    (tmp_path / "metadata.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        folder(tmp_path)


def test_two_files_of_metadata_are_refused(captions, tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,text\n")
    with pytest.raises(
        DataError,
        match=r"has both metadata\.jsonl and metadata\.csv; expected one of them\. Remove the other",
    ):
        folder(captions(A, B))


def test_captions_are_read_before_any_picture(captions, tmp_path):
    (tmp_path / "a.png").write_text("not a picture")
    with pytest.raises(DataError, match="no line for 1"):
        folder(captions(A))


def test_a_file_in_another_encoding_is_reported(captions, tmp_path):
    captions(A, B)
    (tmp_path / "metadata.jsonl").write_bytes('{"text": "Käfer"}'.encode("latin1"))
    with pytest.raises(DataError, match=r"metadata\.jsonl is not text in UTF-8 .* Save it as UTF-8"):
        folder(tmp_path)


def test_a_link_that_leads_nowhere_is_reported(captions, tmp_path):
    (tmp_path / "metadata.jsonl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"Could not open .*metadata\.jsonl: No such file"):
        folder(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX alone")
def test_a_name_that_is_not_a_text_is_matched_by_its_id(tmp_path, put):
    put("a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")  # noqa: PTH104 - a name of bytes
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "\\ufffd.png", "text": "x"}')
    assert folder(tmp_path).prompts == ("x",)


# ---- tables in subfolders, and of Parquet
# ----------------------------------------------------------------------------------------------------


@FORMATS
def test_a_table_names_images_relative_to_its_own_folder(tmp_path, put, suffix):
    for name in ("train/1.png", "train/deep/2.png", "test/1.png"):
        put(name)
    write_table(
        tmp_path / "train" / f"metadata{suffix}",
        [{"file_name": "1.png", "text": "one"}, {"file_name": "deep/2.png", "text": "two"}],
    )
    write_table(tmp_path / "test" / "metadata.jsonl", [{"file_name": "1.png", "text": "of the test"}])
    examples = open_examples(tmp_path, caption="a photo", warn=lambda note: None)
    assert examples.ids == ("test/1.png", "train/1.png", "train/deep/2.png")
    assert examples.prompts == ("of the test", "one", "two")


def test_a_folders_prompts_are_those_of_the_imagefolder_of_datasets(tmp_path, put, hub_folder):
    hub_folder(["a"])  # for its offline settings
    for name in ("1.png", "2.png"):
        put(f"files/train/{name}")
    rows = [{"file_name": f"{i}.png", "text": f"own {i}", "label": 7 - i} for i in (1, 2)]
    write_table(tmp_path / "files" / "train" / "metadata.jsonl", rows)
    ours, theirs = folder(tmp_path / "files"), open_examples(f"hf:{tmp_path / 'files'}")
    assert ours.prompts == theirs.prompts == ("own 1", "own 2")
    assert ours.labels.tolist() == theirs.labels.tolist() == [6, 5]


def test_two_tables_for_one_image_are_refused(tmp_path, put):
    put("sub/a.png")
    write_table(tmp_path / "metadata.csv", [{"file_name": "sub/a.png", "text": "x"}])
    write_table(tmp_path / "sub" / "metadata.jsonl", [{"file_name": "a.png", "text": "y"}])
    with pytest.raises(DataError, match=r"metadata\.csv, line 2, is a second line for sub/a\.png"):
        folder(tmp_path)


def test_an_image_outside_every_table_is_named(tmp_path, put):
    put("train/a.png")
    put("test/b.png")
    write_table(tmp_path / "train" / "metadata.jsonl", [{"file_name": "a.png", "text": "x"}])
    with pytest.raises(DataError, match=r"no line for 1 of the 2 images, the first test/b\.png"):
        folder(tmp_path)


def test_a_damaged_parquet_file_is_reported(tmp_path, put):
    pytest.importorskip("pyarrow")
    put("a.png")
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"metadata\.parquet cannot be read as Parquet .* Write it again"):
        folder(tmp_path)


# ---- texts beside the images
# ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".txt", ".caption", ".TXT"])
def test_text_files_beside_the_images_are_their_captions(tmp_path, put, suffix):
    for name in ("1", "sub/2"):
        put(f"{name}.png")
        (tmp_path / f"{name}{suffix}").write_text(f"own caption {name}\n", encoding="utf-8-sig")
    with pytest.warns(DataWarning, match=r"prompts of their own, such as 'own caption 1'"):
        examples = open_examples(tmp_path, caption="a photo")
    assert examples.prompts == ("own caption 1", "own caption sub/2")


def test_images_without_a_text_file_beside_others_get_an_empty_prompt_and_that_is_said(tmp_path, put):
    put("1.png")
    put("2.png")
    (tmp_path / "1.txt").write_text("one")
    with pytest.warns(DataWarning, match=r"1 of the 2 images, the first 2\.png, have no caption beside them"):
        assert folder(tmp_path).prompts == ("one", "")


def test_of_a_text_of_several_lines_the_first_is_the_caption_and_that_is_said(tmp_path, put):
    put("1.png")
    (tmp_path / "1.txt").write_text("a cat\r\na second wording\n")
    with pytest.warns(
        DataWarning, match=r"Of 1 captions beside the images, the first 1\.txt, only the first line"
    ):
        assert folder(tmp_path).prompts == ("a cat",)


def test_texts_beside_a_table_with_captions_are_not_read_and_that_is_said(captions, tmp_path):
    (tmp_path / "a.txt").write_text("another")
    with pytest.warns(
        DataWarning, match=r"1 captions beside the images \(\.txt\) are not read.*metadata\.jsonl"
    ):
        assert folder(captions(A, B)).prompts == (A["text"], B["text"])


def test_texts_beside_a_table_of_groups_alone_are_the_captions(captions, tmp_path):
    for name in ("a", "cat/b"):
        (tmp_path / f"{name}.txt").write_text(f"a {name}")
    lines = [{"file_name": file, "group": "x"} for file in ("a.png", "cat/b.png")]
    examples = folder(captions(*lines))
    assert (examples.prompts, examples.groups) == (("a a", "a cat/b"), ("x", "x"))


def test_two_texts_of_one_image_are_refused(tmp_path, put):
    put("1.png")
    for suffix in (".txt", ".caption"):
        (tmp_path / f"1{suffix}").write_text("one")
    with pytest.raises(DataError, match=r"1\.caption and .*1\.txt are both captions of one image"):
        folder(tmp_path)


def test_a_text_that_is_not_utf_8_is_reported(tmp_path, put):
    put("1.png")
    (tmp_path / "1.txt").write_bytes("Käfer".encode("latin1"))
    with pytest.raises(DataError, match=r"1\.txt is not text in UTF-8"):
        folder(tmp_path)


# ---- names in another Unicode form
# ----------------------------------------------------------------------------------------------------

NFC = "Café"
NFD = unicodedata.normalize("NFD", NFC)


@pytest.mark.parametrize(("on_disk", "in_table"), [(NFD, NFC), (NFC, NFD)])
@FORMATS
def test_a_table_finds_names_in_another_unicode_form(tmp_path, put, suffix, on_disk, in_table):
    put(f"{on_disk}/{on_disk}.png")
    write_table(
        tmp_path / f"metadata{suffix}", [{"file_name": f"{in_table}/{in_table}.png", "text": "a cup"}]
    )
    examples = folder(tmp_path)
    assert examples.prompts == ("a cup",) and examples.groups == (NFC,)
    assert examples.ids == (f"{on_disk}/{on_disk}.png",)


def test_a_text_beside_is_found_in_another_unicode_form(tmp_path, put):
    put(f"{NFD}.png")
    (tmp_path / f"{NFC}.txt").write_text("a cup")
    assert folder(tmp_path).prompts == ("a cup",)


def two_forms(tmp_path, put):
    for form in (NFC, NFD):
        put(f"{form}.png")
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this disk takes both forms for one name")


def test_two_files_that_differ_in_unicode_form_alone_are_told_apart_by_exact_names(tmp_path, put, captions):
    two_forms(tmp_path, put)
    lines = [{"file_name": f"{form}.png", "text": ascii(form)} for form in (NFC, NFD)]
    prompts = dict(zip((found := folder(captions(A, B, *lines))).ids, found.prompts, strict=True))
    assert prompts[f"{NFC}.png"] == ascii(NFC) and prompts[f"{NFD}.png"] == ascii(NFD)


def test_a_second_line_in_another_unicode_form_is_refused(captions, put):
    put(f"{NFD}.png")
    lines = [{"file_name": f"{form}.png", "text": "x"} for form in (NFC, NFD)]
    with pytest.raises(DataError, match="is a second line for"):
        folder(captions(A, B, *lines))


def test_class_folders_of_one_name_in_two_unicode_forms_are_one_class(tmp_path, put):
    for place in (f"{NFC}/1.png", f"{NFD}/2.png", "Tea/3.png"):
        put(place)
    assert sorted(folder(tmp_path).labels.tolist()) == [0, 0, 1]
