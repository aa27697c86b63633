"""``geo-retina review`` says what waits, and what has no effect any longer."""

from geo_retina.cli import main
from tests.support.reviews import edit, scattered, write_found


def test_review(tmp_path, capsys):
    path = write_found(tmp_path / "found.gpkg", scattered(200))
    command = ["review", str(path), "--budget", "10", "--cells", "20", "--cell-size", "10m"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "10 to look at, 10 of them new (" in said
    assert "20 to complete, 20 of them new" in said
    edit(path, "UPDATE review SET status = 'accepted' WHERE reason <> 'cell'")
    assert main([*command, "--learn-share", "0.3"]) == 0
    told = capsys.readouterr()
    assert "10 rows by a person, kept as they are" in told.out
    assert "note: cells were laid out with --learn-share 0.5" in told.err


def test_both_to_compare_with(tmp_path, capsys):
    path = write_found(tmp_path / "found.gpkg", scattered(5))
    assert main(["review", str(path), "--against", "a.gpkg", "--labels", "b.gpkg"]) == 2
    assert "--against and --labels are both given" in capsys.readouterr().err
