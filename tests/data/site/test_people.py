from __future__ import annotations

from nognet.data.findings import Finding
from nognet.data.inspection import Inspected
from nognet.data.pairs.outcome import PairOutcome, PatientResult, TimeFacts, TimeSummary
from nognet.data.site.people import judge_people

CT = Inspected("ct", "ct", "CT")


def outcome(patient: str, lines: tuple[int, int]) -> PairOutcome:
    return PairOutcome(patient, "n", lines, f"pair {patient}", patient, "ok", (), None)


def patient(name: str, first_line: int, cts: tuple[str, str], who: str = "") -> PatientResult:
    times = tuple(
        TimeSummary((first_line + k,), TimeFacts(CT, (), ct, who), ct) for k, ct in enumerate(cts)
    )
    return PatientResult(name, (outcome(name, (first_line, first_line + 1)),), times, {})


def judged(*patients: PatientResult) -> dict[str, tuple[str, list[Finding]]]:
    outcomes = [o for p in patients for o in p.outcomes]
    return {o.patient_id: (o.status, list(o.findings)) for o in judge_people(outcomes, patients)}


def test_patients_of_their_own_are_left_alone() -> None:
    found = judged(patient("a", 2, ("1", "2"), "A"), patient("b", 4, ("3", "4"), "B"))
    assert found == {"a": ("ok", []), "b": ("ok", [])}


def test_one_ct_under_two_patients_refuses_both_and_names_the_rows() -> None:
    found = judged(
        patient("a", 2, ("1", "2")), patient("b", 4, ("3", "2")), patient("c", 6, ("5", "6"))
    )
    assert [found[p][0] for p in "abc"] == ["refused", "refused", "ok"]
    [leak] = found["a"][1]
    assert leak.code == "patient-leak"
    assert "rows 3, 5" in leak.message


def test_one_ct_twice_under_one_patient_is_no_leak() -> None:
    assert judged(patient("a", 2, ("1", "1")))["a"] == ("ok", [])


def test_one_patient_id_under_two_patients_is_warned_of() -> None:
    found = judged(
        patient("a", 2, ("1", "2"), "X"),
        patient("b", 4, ("3", "4"), "X"),
        patient("c", 6, ("5", "6"), "C"),
        patient("d", 8, ("7", "8"), "D"),
    )
    assert [found[p][0] for p in "abcd"] == ["warning", "warning", "ok", "ok"]
    [shared] = found["b"][1]
    assert shared.code == "patient-shared"
    assert "rows 2, 3, 4, 5" in shared.message


def test_an_id_of_most_patients_is_a_dummy_of_de_identification() -> None:
    found = judged(
        *(patient(name, 2 * k, (f"{k}", f"{k}b"), "ANON") for k, name in enumerate("abc")),
        patient("d", 8, ("7", "8"), "D"),
    )
    assert {status for status, _ in found.values()} == {"ok"}


def test_no_id_is_nobodys() -> None:
    found = judged(*(patient(n, 2 * k, (f"{k}", f"{k}b")) for k, n in enumerate("abcdefgh")))
    assert {status for status, _ in found.values()} == {"ok"}


def test_two_patients_alone_with_one_id_are_warned_of() -> None:
    found = judged(patient("a", 2, ("1", "2"), "X"), patient("b", 4, ("3", "4"), "X"))
    assert {status for status, _ in found.values()} == {"warning"}
