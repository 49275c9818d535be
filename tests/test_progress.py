"""The progress bar says how much, how fast, how long still; on a terminal only."""

from rich.console import Console

from headwater.cli import progress


def test_on_a_terminal_it_shows_count_rate_and_time_left(monkeypatch):
    console = Console(stderr=True, force_terminal=True, width=120, record=True)
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    with progress.progress_bar("features") as tick:
        for done in range(1, 6):
            tick(done, 10)
    text = console.export_text()
    assert "features" in text and "5/10" in text and "/s" in text and "left" in text


def test_elsewhere_it_is_silent(capsys):
    with progress.progress_bar("features") as tick:
        tick(1, 2)
    assert capsys.readouterr() == ("", "")
