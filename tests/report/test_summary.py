from nognet.report.comparison import compare_sites
from nognet.report.metrics_schema import RunMetrics
from nognet.report.summary import (
    absence_sentence,
    caution_sentence,
    privacy_sentence,
    result_sentence,
    training_sentence,
)
from tests.builders.run_metrics import build_run


def test_a_winning_run_says_where_and_by_how_much() -> None:
    text = result_sentence(build_run())
    assert "beats copying the baseline scan at every site" in text
    assert "On 36 test patients (72 pairs of scans)" in text
    assert "Over all sites: DSC, growing +0.052 (0.679 against 0.627, 27 pairs)" in text


def test_a_losing_run_says_so() -> None:
    text = result_sentence(build_run(gain=-0.03))
    assert "is worse than copying the baseline scan at every site" in text
    assert "beats" not in text


def test_a_run_that_wins_somewhere_names_where_it_does_not() -> None:
    text = result_sentence(build_run(sites=("a", "b", "c", "d", "e")))
    assert "at 4 of 5 sites (a, b, c and d, not e)" in text


def test_many_sites_are_counted_and_not_listed() -> None:
    metrics = build_run(sites=tuple(f"hospital-{index}" for index in range(8)))
    for text in (result_sentence(metrics), training_sentence(metrics)):
        assert "8 sites" in text
        assert "hospital-3" not in text


def test_a_run_without_results_claims_nothing() -> None:
    text = result_sentence(build_run(rounds=2, finished=False))
    assert text.startswith("The run is still going")
    assert "beats" not in text
    assert "2 of 8 rounds" in training_sentence(build_run(rounds=2, finished=False))
    assert "no site yet" in training_sentence(build_run(sites=(), rounds=0, finished=False))


def test_few_patients_are_warned_about() -> None:
    assert "fewer than 30 test patients" in (caution_sentence(compare_sites(build_run())) or "")
    assert caution_sentence([]) is None


def test_sites_that_are_missing_are_named_with_the_reason() -> None:
    values = build_run().model_dump(mode="json")
    values["refused"] = {"delta": "ContractError:contract"}
    values["final"]["left_out"] = {"gamma": "TrainingError:not-finite"}
    text = absence_sentence(RunMetrics.model_validate(values))
    assert text == (
        "Refused when joining: delta (ContractError:contract). "
        "Without test figures: gamma (TrainingError:not-finite)."
    )
    assert absence_sentence(build_run()) is None


def test_privacy_is_said_with_the_largest_epsilon_or_that_there_is_none() -> None:
    assert privacy_sentence(build_run()) == "Trained without differential privacy."
    said = privacy_sentence(build_run(epsilon=True))
    assert "epsilon 1.90 spent at delta 0.001 in this run, at the site that spent most" in said
    assert "without noise" not in said
    assert "It covers the weights. Counts and figures are not noised" in said


def test_sites_with_rounds_without_epsilon_are_named_where_others_have_one() -> None:
    values = build_run(epsilon=True).model_dump(mode="json")
    for entry in values["rounds"]:
        entry["sites"]["beta"]["train"]["epsilon"] = None
    values["rounds"][0]["sites"]["alpha"]["train"]["epsilon"] = None  # noised from round 2 on
    said = privacy_sentence(RunMetrics.model_validate(values))
    assert "Patient-level differential privacy (alpha and gamma only)" in said
    told = "Trained without noise at alpha (1 round) and beta (8 rounds): no epsilon holds"
    assert told in said


def test_a_site_that_trained_alone_is_judged_by_its_local_model() -> None:
    text = build_run(sites=("alpha",)).model_dump_json().replace('"federated":', '"local":')
    metrics = RunMetrics.model_validate_json(text)
    said = result_sentence(metrics)
    assert "the local model of round" in said
    assert "beats copying the baseline scan at its site" in said
    assert said == result_sentence(build_run(sites=("alpha",))).replace("federated", "local")
    assert "at 1 site (alpha) alone" in training_sentence(metrics)
    assert "federated" not in training_sentence(metrics)
