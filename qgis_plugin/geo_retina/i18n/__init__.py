"""Translate what the plugin says; files of translations lie in this folder."""

from __future__ import annotations

from pathlib import Path

from qgis.PyQt.QtCore import QCoreApplication, QLocale, QSettings, QTranslator

_CONTEXT = "GeoRetina"


def tr(text: str) -> str:
    """Translate a text of the plugin into the user's language, if that is there."""
    return QCoreApplication.translate(_CONTEXT, text)


def install_translator() -> QTranslator | None:
    """Load the user's language, if its file is there; the caller keeps what is returned."""
    locale = str(QSettings().value("locale/userLocale", "") or QLocale.system().name())
    path = Path(__file__).with_name(f"geo_retina_{locale[:2]}.qm")
    translator = QTranslator()
    if not path.is_file() or not translator.load(str(path)):
        return None
    QCoreApplication.installTranslator(translator)
    return translator
