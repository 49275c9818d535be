import json
import os

import pytest

from headwater.data import open_examples
from headwater.data.folder import folder
from headwater.errors import DataError


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
        and examples.labels.tolist() == [1, 0]
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


def test_a_label_of_numbers_is_not_read(captions):
    examples = folder(captions(A | {"label": 3}, B | {"label": 0}))
    assert examples.groups is None and examples.labels is None and examples.prompts is not None


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
        ("file_name,text\na.png,x,y\n", r"no line for 1 of the 2 images, the first cat/b\.png"),
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
