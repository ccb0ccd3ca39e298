"""The sample and the tables of ``make mutants``, without mutmut."""

from __future__ import annotations

from tests.benchmarks.mutants import Mutant, describe_change, draw_sample, write_tables

DIFF = "# f: survived\n--- a.py\n+++ a.py\n@@ -1 +1 @@\n-    return a | b\n+    return a & b"


def test_sample_has_some_mutants_of_each_module() -> None:
    """Up to three mutants of each module are drawn, and the same ones for the same code."""
    few = [Mutant(f"service.few.x_f__mutmut_{number}", "not checked") for number in range(2)]
    many = [Mutant(f"service.many.x_f__mutmut_{number}", "not checked") for number in range(50)]
    sample = draw_sample([*few, *many], each=3)
    assert sample[:2] == [mutant.name for mutant in few] or sample[:2] == [few[1].name, few[0].name]
    assert len(set(sample)) == 5
    assert set(sample[2:]) <= {mutant.name for mutant in many}
    assert draw_sample([*reversed(many), *few], each=3) == sample


def test_change_is_one_line() -> None:
    """The lines of a diff become one line that a table can hold."""
    assert describe_change(DIFF) == r"`- return a \| b + return a & b`"


def test_tables_count_by_module_and_name_survivors() -> None:
    """Each module has a row. A mutant that no test killed has its change and mutmut's word."""
    mutants = [
        Mutant("service.a.x_f__mutmut_1", "killed"),
        Mutant("service.a.x_f__mutmut_2", "timeout"),
        Mutant("service.a.x_f__mutmut_3", "survived"),
        Mutant("service.b.xǁCǁf__mutmut_1", "no tests"),
    ]
    diffs = {mutant.name: DIFF for mutant in mutants[2:]}
    lines = write_tables(mutants, diffs, minutes=12.3).splitlines()
    assert lines[0] == "Of 4 mutants, the tests killed 2: 50%. The run took 12 minutes."
    assert "| `service.a` | 3 | 2 |" in lines
    assert "| `service.b` | 1 | 0 |" in lines
    change = describe_change(DIFF)
    assert lines[-2:] == [
        f"| `service.a` | {change} | survived |",
        f"| `service.b` | {change} | no tests |",
    ]
