"""Files and their names: outputs written whole or not at all, texts and JSON of others."""

from geo_retina.files.drafts import Output, new_file, new_files, remove_file, scratch_beside
from geo_retina.files.output_checks import (
    check_file_output,
    check_overwrite,
    check_parent,
    make_report_folder,
)
from geo_retina.files.subdatasets import (
    find_spelling,
    from_folder,
    is_subdataset,
    subdataset_driver,
    subdataset_file,
    with_file,
)
from geo_retina.files.text import is_broken_link, parse_json, read_text, say_missing, write_text

__all__ = [
    "Output",
    "check_file_output",
    "check_overwrite",
    "check_parent",
    "find_spelling",
    "from_folder",
    "is_broken_link",
    "is_subdataset",
    "make_report_folder",
    "new_file",
    "new_files",
    "parse_json",
    "read_text",
    "remove_file",
    "say_missing",
    "scratch_beside",
    "subdataset_driver",
    "subdataset_file",
    "with_file",
    "write_text",
]
