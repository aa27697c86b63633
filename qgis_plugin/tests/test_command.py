"""Which geo-retina is found, and what is said where none can be used."""

from __future__ import annotations

import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from geo_retina.command import (
    ApiCache,
    Choice,
    CommandError,
    ask_api,
    clean_environment,
    find_command,
    read_api,
)
from tests.support import fake_program


class TestCommand(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name) / "Müll und Ähren"
        self.folder.mkdir()
        self.enterContext(mock.patch.dict(os.environ, {"PATH": str(self.folder / "nothing")}))

    def enterContext(self, manager):
        value = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return value

    def test_environment_has_nothing_of_qgis(self) -> None:
        of_qgis = (
            *("PYTHONHOME", "PYTHONPATH", "PROJ_LIB", "PROJ_DATA", "GDAL_DATA"),
            *(
                "GDAL_DRIVER_PATH",
                "QT_PLUGIN_PATH",
                "SSL_CERT_DIR",
                "Gdal_Data",
                "QGIS_PREFIX_PATH",
            ),
        )
        kept = {"PATH": "/bin", "HOME": "/home/me", "CUDA_VISIBLE_DEVICES": "1"}
        cleaned = clean_environment({**dict.fromkeys(of_qgis, "x"), **kept})
        self.assertEqual(cleaned, {**kept, "PYTHONUTF8": "1"})

    def test_what_was_set_goes_before_the_path_and_that_before_a_python(self) -> None:
        program = fake_program(self.folder)
        python = Choice(python=sys.executable)
        self.assertEqual(find_command(python), [sys.executable, "-m", "geo_retina"])
        with mock.patch.dict(os.environ, {"PATH": str(self.folder)}):
            self.assertEqual(find_command(python), [str(program)])
            other = self.folder / "other"
            other.touch()
            self.assertEqual(find_command(Choice(command=str(other))), [str(other)])

    def test_nothing_found_says_what_to_type(self) -> None:
        with self.assertRaisesRegex(CommandError, "pip install geo-retina.*never in that of QGIS"):
            find_command(Choice())

    def test_a_set_file_that_is_gone_is_named(self) -> None:
        for choice in (Choice(command="/gone/geo-retina"), Choice(python="/gone/python")):
            with self.assertRaisesRegex(CommandError, "/gone/.*no such file"):
                find_command(choice)

    def test_a_python_without_geo_retina(self) -> None:
        with self.assertRaisesRegex(CommandError, "is a Python without geo-retina"):
            ask_api([sys.executable, "-m", "geo_retina"])

    def test_an_older_and_a_newer_one(self) -> None:
        with self.assertRaisesRegex(CommandError, "an older geo-retina than this plugin needs"):
            ask_api([str(fake_program(self.folder, old=True))])
        with self.assertRaisesRegex(CommandError, "speaks protocol 2, and this plugin 1"):
            ask_api([str(fake_program(self.folder, protocol=2))])

    def test_what_is_no_program_or_another(self) -> None:
        text = self.folder / "text"
        text.write_text("no program")
        with self.assertRaisesRegex(CommandError, "cannot be started: Permission denied"):
            ask_api([str(text)])
        with self.assertRaisesRegex(CommandError, "is not geo-retina"):
            ask_api(["/bin/echo"])
        for answer in (b"{}", b"[]", b'{"protocol": null}', b"\xff"):
            with self.assertRaisesRegex(CommandError, "is not geo-retina"):
                read_api("it", answer)

    def test_answers_are_remembered_failures_too(self) -> None:
        program = fake_program(self.folder)
        cache = ApiCache()
        self.assertEqual(cache.ask([str(program)])["geo_retina"], "9.9")
        program.unlink()
        self.assertEqual(cache.ask([str(program)])["geo_retina"], "9.9")
        cache.forget()
        for _ in range(2):
            with self.assertRaises(CommandError):
                cache.ask([str(program)])
            fake_program(self.folder)
        cache.forget()
        self.assertEqual(cache.ask([str(program)])["protocol"], 1)


if __name__ == "__main__":
    unittest.main()
