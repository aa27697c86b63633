"""Tables parked on disk, so that one pass over them can fill several files."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc


class Spool:
    """Tables of one schema in a file that is read as often as needed, one batch at a time.

    Attributes:
        schema: of the tables; None where there was none.
        rows: how many there are.
        longest_texts: bytes of the longest value of each text column.
    """

    def __init__(self, path: Path, tables: Iterable[pa.Table]) -> None:
        self._path = path
        self.schema: pa.Schema | None = None
        self.rows = 0
        self.longest_texts: dict[str, int] = {}
        iterator = iter(tables)
        first = next(iterator, None)
        if first is None:
            return
        self.schema = first.schema
        with pa.ipc.new_stream(str(path), first.schema) as writer:
            for table in itertools.chain([first], iterator):
                self._note(table)
                writer.write_table(table.select(first.schema.names))

    def __iter__(self) -> Iterator[pa.Table]:
        if self.schema is None:
            return
        yield self.schema.empty_table()
        with pa.memory_map(str(self._path)) as source, pa.ipc.open_stream(source) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])

    def _note(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        for field in table.schema:
            if pa.types.is_string(field.type):
                longest = pc.max(pc.binary_length(table[field.name])).as_py() or 0
                self.longest_texts[field.name] = max(longest, self.longest_texts.get(field.name, 0))
