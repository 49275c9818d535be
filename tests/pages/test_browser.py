"""A browser draws the page without complaint."""

import numpy as np
import pytest
from PIL import Image

from headwater.pages.page import report
from toy_runs import TRUTH


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("runs", [1, 3])
def test_a_browser_draws_the_page_without_overflow_complaint_or_request(
    make, mapped, browser, width, runs, tmp_path
):
    long = np.array(
        [f"a/very/long/folder/name/that/goes/on/and/on/{i:05d}_{'x' * 40}.png" for i in range(40)]
    )
    words = {
        "train_ids": long,
        "query_ids": long[:6],
        "train_groups": np.array([f"Ann with the long name{'e' * 90}", "Bo"] * 20),
    }
    words |= {
        "train_prompts": np.array([f"a {'very ' * 40}red car", "x" * 300] * 20),
        "query_prompts": np.array(["y" * 300] * 6),
    }
    folders = [make(f"run-{i}", title=f"Method {i}", ground_truth=TRUTH, **words) for i in range(runs)]
    (folders[0] / "regions.npz").write_bytes((mapped(name="mapped") / "regions.npz").read_bytes())
    path = report(folders)
    page = browser.new_page(viewport={"width": width, "height": 900}, java_script_enabled=True)
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    room, needed = page.evaluate(
        "[document.documentElement.clientWidth, document.documentElement.scrollWidth]"
    )
    decoded = page.evaluate(
        "Promise.all([...document.querySelectorAll('image')].map(i => i.decode().then(() => 1))).then(d => "
        "d.length)"
    )
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    page.close()
    assert needed <= room
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    assert decoded == path.read_text().count("data:image/png") > 0
    assert len(np.unique(np.asarray(Image.open(tmp_path / "page.png")))) > 50  # something was drawn
