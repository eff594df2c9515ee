"""Read YAML, and refuse mappings that name a key twice."""

from __future__ import annotations

from typing import Any

import yaml


class _Once(yaml.SafeLoader):
    """A loader that refuses two equal keys, of which PyYAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                if key.value in lines:
                    raise ValueError(
                        f'"{key.value}" stands twice, in lines {lines[key.value]} and {line}; '
                        "keep one of the two"
                    )
                lines[key.value] = line
        return super().construct_mapping(node, deep)


def load_yaml(content: bytes) -> Any:
    """Parse YAML of plain values.

    Args:
        content: the bytes of the file, so that a file that is not text gives a YAMLError too.

    Raises:
        yaml.YAMLError: if it is not YAML.
        ValueError: if a mapping names a key twice; the message gives both lines.
    """
    return yaml.load(content, Loader=_Once)  # a SafeLoader: it builds plain values only
