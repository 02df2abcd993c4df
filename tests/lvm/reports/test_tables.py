"""A table says the same in a terminal and in a report, and nothing in it is taken for markup."""

import io
from typing import Any

import pytest
import torch
from markdown_it import MarkdownIt
from rich.console import Console

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.decoding import evaluate as pipeline
from lvm.evaluation.evaluate import SKILLS, evaluate_checkpoint
from lvm.evaluation.explain import explain
from lvm.gates.data import data_gates
from lvm.gates.result import GateResult, gate_result
from lvm.models.baselines import STRONGEST
from lvm.models.checkpoint import load_checkpoint
from lvm.reports.tables.evaluation import comparison_table, model_table
from lvm.reports.tables.explain import ablation_table, contrast_table, direction_table, information_table
from lvm.reports.tables.gates import gate_table
from lvm.reports.tables.table import Table, interval_text
from lvm.reports.tables.text import ARM_LABELS, arm_table, decoded_table, generated_table, length_table, sample_table
from tests.support.lookup_decoder import ConstantDecoder, LookupDecoder, opened
from tests.support.trainings import trained


@pytest.fixture(scope="module")
def summaries(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Summaries on val (with intervals) and on test (too few documents for them)."""
    checkpoint = load_checkpoint(trained(dataset), torch.device("cpu"))
    return {split: evaluate_checkpoint(dataset, checkpoint, split).summary() for split in ("val", "test")}


def printed(rows: Table, width: int = 400) -> list[str]:
    """Lines in a terminal of that width."""
    console = Console(file=io.StringIO(), width=width, no_color=True)
    console.print(rows.rich())
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def terminal_cells(rows: Table) -> list[list[str]]:
    """Header and rows as a terminal shows them."""
    return [[cell.strip() for cell in line.replace("┃", "│").split("│")[1:-1]] for line in printed(rows) if line.startswith(("┃", "│"))]


def words(cells: list[list[str]]) -> list[str]:
    """Every word of a table, whatever line of a cell it stands on."""
    return sorted(word for row in cells for cell in row for word in cell.split())


def markdown_cells(rows: Table) -> list[list[str]]:
    """Header and rows as a Markdown reader finds them."""
    found: list[list[str]] = []
    for token in MarkdownIt().enable("table").parse(rows.markdown()):
        if token.type == "tr_open":
            found.append([])
        elif token.type == "inline" and found:
            found[-1].append("".join(child.content for child in token.children or []).strip())
    return found


def every_table(summaries: dict[str, dict[str, Any]], dataset: Dataset) -> list[Table]:
    models = {"lstm": summaries["val"], "gru": summaries["val"]}
    return [
        gate_table(data_gates(dataset, GateThresholds())),
        model_table(summaries["val"], "lstm"),
        model_table(summaries["test"], "lstm"),
        comparison_table(models, {"lstm": "pass", "gru": "FAIL: collapse"}, "lstm"),
    ]


def test_terminal_and_markdown_hold_the_same_cells(summaries: dict[str, dict[str, Any]], dataset: Dataset) -> None:
    for rows in every_table(summaries, dataset):
        expected = [list(rows.columns), *map(list, rows.rows)]
        assert all(len(row) == len(rows.columns) for row in rows.rows)
        height = sum(line.startswith("┃") for line in printed(rows))
        titles, cells = terminal_cells(rows)[:height], terminal_cells(rows)[height:]
        assert ["".join("".join(parts).split()) for parts in zip(*titles, strict=True)] == [
            "".join(title.split()) for title in rows.columns
        ]
        assert words(cells) == words(expected[1:])  # a wide table puts intervals under their values, and titles on several lines
        assert markdown_cells(rows) == expected
        assert rows.title in printed(rows)[0]
        assert rows.markdown().startswith(f"**{rows.title}**\n\n|")


def test_too_few_documents_is_shown_in_brackets(summaries: dict[str, dict[str, Any]]) -> None:
    rows = model_table(summaries["test"], "lstm")
    value = summaries["test"]["metrics"]["cosine"]["value"]
    for cells in (terminal_cells(rows), markdown_cells(rows)):
        assert cells[1][1] == f"{value:.4f} [too few documents]"


@pytest.mark.parametrize("text", ["[bold]x[/bold]", "[/]", "[red", "a | b", "[link=http://x]y", "back\\slash", "two\nlines"])
def test_no_text_is_taken_for_markup(text: str) -> None:
    rows = Table(f"at {text}", ["name", "value [b]"], [[text, "1"]])
    terminal, markdown = terminal_cells(rows), markdown_cells(rows)
    assert terminal[0] == markdown[0] == ["name", "value [b]"]
    shown = text.split("\n")
    assert [row[0] for row in terminal[1:]] == shown
    assert len(markdown) == 2 and markdown[1][1] == "1", "a row stays a row"
    assert " ".join(printed(rows)[: len(shown)]).split() == ["at", *text.split()]
    if "\\" not in text:
        assert markdown[1][0] == " ".join(shown)


def test_a_narrow_terminal_folds_and_loses_nothing(summaries: dict[str, dict[str, Any]], dataset: Dataset) -> None:
    rows = gate_table(data_gates(dataset, GateThresholds()))
    lines = printed(rows, width=80)
    assert max(map(len, lines)) <= 80
    folded = "".join(line.split("│")[-2].strip() for line in lines if line.startswith("│"))
    for row in rows.rows:
        assert row[-1].replace(" ", "") in folded.replace(" ", "")


def test_a_comparison_fits_a_terminal_of_80_characters_with_every_interval_on_its_line(summaries: dict[str, dict[str, Any]]) -> None:
    names, summary = ("lstm", "mamba2", "transformer"), summaries["val"]
    rows = comparison_table(dict.fromkeys(names, summary), dict.fromkeys(names, "pass"), "transformer")
    lines = printed(rows, width=80)
    assert all(line[-1] in "┓┃┩│┘" for line in lines if line[0] in "┏┃┡│└"), "nothing is cut off at the edge"
    for metric in SKILLS:
        text = interval_text(summary["metrics"][f"skill_{metric}"], True)
        assert sum(text in line and "transformer (champion)" in line for line in lines) >= 1


def test_intervals_read_as_value_and_ends() -> None:
    assert interval_text({"value": 0.25, "low": 0.2, "high": 0.3}) == "0.2500 [0.2000, 0.3000]"
    assert interval_text({"value": 0.25, "low": -0.2, "high": 0.3}, sign=True) == "+0.2500 [-0.2000, +0.3000]"
    assert interval_text({"value": 0.25, "low": None, "high": None}, sign=True) == "+0.2500 [too few documents]"


def test_gates_show_result_value_threshold_reason_and_remedy() -> None:
    gates: list[GateResult] = [
        gate_result("first", 0.1234567, 0.5, False, "all well", "nothing"),
        gate_result("second", 3e-5, 1e-4, False, "look here", "turn it", warned=True),
        gate_result("third", 12345.678, 0.5, True, "no", "throw it away"),
    ]
    assert gate_table(gates).rows == [
        ["first", "pass", "0.1235", "0.5", "all well"],
        ["second", "WARN", "3e-05", "0.0001", "look here"],
        ["", "remedy", "", "", "turn it"],
        ["third", "FAIL", "1.235e+04", "0.5", "no"],
        ["", "remedy", "", "", "throw it away"],
    ]


def test_a_model_stands_above_every_baseline_with_chance_and_pool_in_the_title(summaries: dict[str, dict[str, Any]]) -> None:
    summary = summaries["val"]
    rows = model_table(summary, "lstm")
    assert rows.rows[0] == ["lstm", *(interval_text(summary["metrics"][name]) for name in SKILLS)]
    baselines = rows.rows[1:-1]
    assert {row[0] for row in baselines} == set(summary["baselines"])
    assert [float(row[1]) for row in baselines] == sorted((float(row[1]) for row in baselines), reverse=True)
    for name, *values in baselines:
        assert values == [f"{summary['baselines'][name][metric]:.4f}" for metric in SKILLS]
    skills = [f"{interval_text(summary['metrics'][f'skill_{m}'], True)} over {summary['best_baseline'][m]}" for m in SKILLS]
    assert rows.rows[-1] == ["skill over the best baseline", *skills], "each of the four names the baseline that it is over"
    pool = summary["pool"]
    for part in (
        f"{pool['queries']} windows",
        f"pool {pool['size']}",
        pool["sha256"][:8],
        f"chance R@5 {pool['chance_recall_at_5']:.4f}",
        "context 3",
    ):
        assert part in rows.title


@pytest.fixture(scope="module")
def explained(dataset: Dataset) -> dict[str, Any]:
    """What is told of the tiny model on validation documents."""
    return explain(dataset, load_checkpoint(trained(dataset), torch.device("cpu")), "val")


def test_every_ablation_is_a_row_of_the_models_loss_the_baselines_and_the_difference(explained: dict[str, Any]) -> None:
    for metric, rival in STRONGEST.items():
        rows = ablation_table(explained, metric)
        assert list(rows.columns) == ["context", "lstm", rival, "excess"]
        assert [row[0] for row in rows.rows] == list(explained["ablations"])
        drop = explained["ablations"]["reverse"][metric]
        assert rows.rows[1] == ["reverse", *(interval_text(drop[whose], True) for whose in ("model", "baseline", "excess"))]
        assert f"{explained['windows']} windows of {explained['documents']} val documents, context 3" in rows.title


def test_an_accuracy_stands_beside_its_chance_and_one_that_cannot_be_had_says_so(explained: dict[str, Any]) -> None:
    rows = contrast_table(explained)
    model = explained["contrast"]["1"]["accuracy"]["model"]
    assert rows.rows[0][:4] == ["1", "model", interval_text(model), "0.50"] and rows.rows[0][4] == ""
    assert all(row[4].startswith("+") or row[4].startswith("-") for row in rows.rows if row[1] != "model")
    short = contrast_table({"contrast": {"9": None}})
    assert short.rows == [["9", "", "no document has enough chunks", "", "", ""]]


def test_a_bound_stands_under_its_ceiling_and_a_gain_is_called_an_estimate(explained: dict[str, Any]) -> None:
    rows, info = information_table(explained), explained["information"]
    assert f"ceiling log {info['candidates']} = {info['ceiling']:.2f}" in rows.title and "an estimate, not a bound" in rows.title
    gains = {row[0]: row[2] for row in rows.rows}
    assert [name for name, gain in gains.items() if gain == "(compared with)"] == [info["last_chunk"]]
    assert gains["whole context: model"] == interval_text(info["gains"]["whole context: model"], True)
    assert {name for name, gain in gains.items() if not gain} == {
        name for name in info["critics"] if name.startswith("last chunk") and name != info["last_chunk"]
    }


def test_each_direction_names_the_baseline_that_it_is_held_against(explained: dict[str, Any]) -> None:
    alone, both = direction_table(explained, None), direction_table(explained, explained | {"reverse": True})
    assert list(alone.columns) == ["", "from beginning to end"]
    assert list(both.columns) == ["", "from beginning to end", "from end to beginning"]
    assert list(direction_table(explained | {"reverse": True}, None).columns) == ["", "from end to beginning"]
    for row, metric in zip(both.rows, SKILLS, strict=True):
        over = f"{interval_text(explained['skill'][metric], True)} over {explained['best_baseline'][metric]}"
        assert row == [f"skill_{metric}", over, over]


def test_a_comparison_shows_the_four_skills_of_every_model_above_the_best_baseline_of_each(summaries: dict[str, dict[str, Any]]) -> None:
    summary = summaries["val"]
    rows = comparison_table({"lstm": summary, "gru": summary}, {"lstm": "pass", "gru": "FAIL: collapse"}, "gru").rows
    for metric in SKILLS:
        own, best = summary["metrics"], summary["best_baseline"][metric]
        numbers = [f"{own[metric]['value']:.4f}", interval_text(own[f"skill_{metric}"], True)]
        assert [row[1:] for row in rows if row[0] == metric] == [
            ["lstm", *numbers],
            ["gru (champion)", *numbers],
            [best, f"{summary['baselines'][best][metric]:.4f}", "the best baseline"],
        ]
    alone = comparison_table({"lstm": summary}, {"lstm": "pass"}, None).rows
    assert not [row for row in alone if "champion" in row[1]]


def test_a_comparison_shows_a_warning_as_one(summaries: dict[str, dict[str, Any]]) -> None:
    said = {"lstm": "pass with warnings: baselines", "gru": "FAIL: collapse"}
    rows = comparison_table(dict.fromkeys(said, summaries["val"]), said, None).rows
    assert {row[1]: row[3] for row in rows if row[0] == "gates (val)"} == said


# Text


@pytest.fixture(scope="module")
def texts(dataset: Dataset, encoder: Encoder) -> dict[str, dict[str, Any]]:
    """Windows that a good and a useless decoder put into words."""
    checkpoint = load_checkpoint(trained(dataset), torch.device("cpu"))
    decoders = {"good": LookupDecoder(dataset, encoder), "useless": ConstantDecoder(encoder)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "WINDOWS", 20)
        return {
            name: pipeline.decode_windows(dataset, checkpoint, opened(decoder, dataset), "val").summary()
            for name, decoder in decoders.items()
        }


STEPS = [
    {
        "nearest": {"text": "A real one | here.", "doc_id": "d", "chunk_index": 7, "source": "s", "cosine": 0.61234},
        "inverted": {"text": "A [bold] one.", "roundtrip_cosine": 0.7, "steps": 2},
    },
    {"nearest": None, "inverted": {"text": "Another.", "roundtrip_cosine": 0.5, "steps": 0}},
]


def test_text_tables_hold_the_same_cells_in_terminal_and_markdown(texts: dict[str, dict[str, Any]]) -> None:
    good = texts["good"]
    results = [step["inverted"] for step in STEPS]
    tables = [arm_table(good), length_table(good), sample_table(good, 3), generated_table(STEPS, 5), decoded_table(results, "minilm")]
    for rows in tables:
        expected = [list(rows.columns), *map(list, rows.rows)]
        assert all(len(row) == len(rows.columns) for row in rows.rows)
        assert words(terminal_cells(rows)) == words(expected)
        assert markdown_cells(rows) == expected


def test_the_real_chunk_leads_and_the_inverted_text_stands_beside_it(texts: dict[str, dict[str, Any]]) -> None:
    summary = texts["good"]
    rows = arm_table(summary)
    assert [row[0] for row in rows.rows[:2]] == ["nearest real chunk", "C: the prediction, in words"]
    for row, name in zip(rows.rows, ARM_LABELS, strict=False):
        scores = summary["arms"][name]
        assert row[1:4] == [f"{scores['bleu']:.1f}", f"{scores['token_f1']:.3f}", f"{scores['rouge_l']:.3f}"]
        assert row[5] == interval_text(summary["about"]["A" if name == "B" else name])
    assert rows.rows[6][0] == "B: A at unit length (is A)"
    assert rows.rows[-1][5] == interval_text(summary["about"]["C_over_nearest"], True)
    labels = [row[1] for row in sample_table(summary, 1).rows]
    assert labels == ["last of the context", "true next", "nearest real chunk", "C: in words", "A: ceiling"]


def test_a_decoder_that_fails_its_gate_is_said_to_be_unavailable_over_every_text(texts: dict[str, dict[str, Any]]) -> None:
    for table in (arm_table, lambda summary: sample_table(summary, 3)):
        assert "DECODING UNAVAILABLE" in table(texts["useless"]).title
        assert "UNAVAILABLE" not in table(texts["good"]).title


def test_samples_are_spread_over_the_windows(texts: dict[str, dict[str, Any]]) -> None:
    samples = texts["good"]["samples"]
    shown = [row[0] for row in sample_table(texts["good"], 4).rows if row[0]]
    assert shown == [f"{s['doc_id']}:{s['chunk_index']}" for s in samples[::5]]
    assert len([row for row in sample_table(texts["good"], 100).rows if row[0]]) == len(samples)


def test_the_ceiling_stands_beside_the_prediction_by_length(texts: dict[str, dict[str, Any]]) -> None:
    summary = texts["good"]
    for row in length_table(summary).rows:
        a, c = (summary["arms"][arm]["by_length"][row[0]] for arm in ("A", "C"))
        assert row[1:4] == [str(a["n"]), f"{a['bleu']:.1f}", f"{c['bleu']:.1f}"]


def test_every_step_shows_the_real_chunk_with_its_source_before_the_words() -> None:
    assert generated_table(STEPS, 5).rows == [
        ["1", "nearest real chunk", "A real one | here. (s, d:7, cosine 0.612)"],
        ["", "in words", "A [bold] one. (round trip 0.700)"],
        ["2", "in words", "Another. (round trip 0.500)"],
    ]


def test_a_decoded_text_stands_under_the_text_that_was_given() -> None:
    results = [{"input": "Given.", "text": "Back.", "roundtrip_cosine": 0.9, "steps": 3}]
    assert decoded_table(results, "x").rows == [["1", "given", "Given."], ["", "decoded", "Back. (round trip 0.900, step 3)"]]
    assert decoded_table([{k: v for k, v in results[0].items() if k != "input"}], "x").rows == [
        ["1", "decoded", "Back. (round trip 0.900, step 3)"]
    ]
