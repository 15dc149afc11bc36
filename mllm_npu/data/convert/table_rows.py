"""Table rows: read Arrow and parquet tables in small batches, with the names of classes."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mllm_npu.errors import DataError

BATCH_ROWS = 64


def import_pyarrow(module: str = "pyarrow") -> Any:
    """Import pyarrow or one of its modules.

    Raises:
        DataError: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            "A parquet or Arrow file was to be read, pyarrow is not installed. "
            'Run `pip install "mllm-npu[data]"`.'
        ) from error


def class_columns(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Names of the classes of each class column, as Hugging Face datasets keep them in a schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: list(feature["names"])
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, TypeError):
        return {}


def read_table(
    batches: Iterable[Any], classes: Mapping[str, list[str]], first: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Records of record batches, each with where it stands.

    Args:
        batches: Arrow record batches; so many rows of one at a time become Python objects.
        classes: names of classes by column.
        first: number of the first row.
    """
    number = first
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH_ROWS):
            for record in batch.slice(start, BATCH_ROWS).to_pylist():
                for column, names in classes.items():
                    value = record.get(column)
                    if isinstance(value, int) and 0 <= value < len(names):
                        record[column] = names[value]
                yield f"row {number}", record
                number += 1
