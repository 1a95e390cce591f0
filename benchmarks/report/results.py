"""The lines that benchmarks print, by what they measured."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ['Results']


@dataclass
class Results:
    """Results by name and workload, in the order of the file; of what was measured twice, the last.

    Attributes:
        machine: What the first stage said of the machine.
        stages: The machine before each stage, and what ran there.
        rounds: Of each stage.
        found: name -> workload -> contender -> the line.
        versions: Contender -> its version.
    """

    machine: dict[str, Any] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    found: dict[str, dict[str, dict[str, dict[str, Any]]]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> 'Results':
        """Read a file of lines of JSON."""
        results = cls()
        for line in path.read_text().splitlines():
            result = json.loads(line)
            if result['name'] == 'machine':
                results.machine = results.machine or result
                results.rounds.append(result['rounds'])
                results.stages.append(result)
                continue
            contender = result['contender']
            results.found.setdefault(result['name'], {}).setdefault(result['workload'], {})[contender] = result
            if 'version' in result:
                results.versions.setdefault(contender.split()[0], result['version'])
        return results

    def get(self, name: str, workload: str, contender: str) -> dict[str, Any]:
        """A line; empty where there is none."""
        return self.found.get(name, {}).get(workload, {}).get(contender, {})

    def matching(self, name: str, prefix: str, contender: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each workload that begins like this, with the contender's line."""
        for workload, lines in self.found.get(name, {}).items():
            if workload.startswith(prefix) and contender in lines:
                yield workload, lines[contender]
