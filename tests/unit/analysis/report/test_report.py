"""Whole reports: the golden one, those of sweeps that lack something, and what hostile names cannot do."""

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal

import pytest
from click.testing import CliRunner

import kd_ray
from kd_ray.analysis.compare import compare
from kd_ray.analysis.reading import read_study
from kd_ray.analysis.report.build import check_folder, compared, make_report, report, write_files
from kd_ray.analysis.report.evidence import make_evidence
from kd_ray.analysis.report.page import unbroken
from kd_ray.analysis.report.published import find_published
from kd_ray.analysis.report.sections import first_section, make_sections
from kd_ray.analysis.report.style import drawing
from kd_ray.analysis.stored import stored_or_made
from kd_ray.analysis.study import spread
from kd_ray.cli import cli
from kd_ray.errors import InvalidInputError, StoreError
from kd_ray.housekeeping.find_garbage import find_garbage
from kd_ray.results.query import Results
from kd_ray.results.store import Store, open_store
from tests.golden.make import golden_results
from tests.golden.make_report import TEXT, words
from tests.simulated import simulate
from tests.unit.analysis.report.made import HOSTILE, hostile_sweep

pytestmark = pytest.mark.slow


class Tags(HTMLParser):
    """Counts tags, and collects attributes that load something or run."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.count: dict[str, int] = {}
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data", "srcset")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def text_of(files: dict[str, bytes]) -> str:
    return words(files["index.html"].decode())


def said(results: Results) -> str:
    """The words of a report whose figures are made, but not turned into files."""
    study = read_study(results, "demo")
    rows, verdict = compared(results, study)
    evidence = make_evidence(rows, study)
    with drawing():
        sections = [first_section(study, evidence), *make_sections(study, evidence, find_published(study))]
    parts = [f"{title} {sentence}" for title, sentences in verdict.parts() for sentence in sentences]
    for section in sections:
        parts += [f"{figure.title} {figure.caption}" for figure in section.drawings]
        parts += [f"{table.title} {table.caption}" for table in section.tables]
        parts += [table.to_csv() for table in section.tables]
    return "\n".join(parts)


def test_report_of_the_golden_records_says_what_it_said(golden_files: dict[str, bytes]) -> None:
    assert text_of(golden_files) == TEXT.read_text(encoding="utf-8")


def test_page_opens_with_the_verdict_of_the_comparison(golden: Results, golden_files: dict[str, bytes]) -> None:
    verdict = compare(golden, "demo").verdict
    text = text_of(golden_files)
    places = [text.index(f"{title}\n") for title, _ in verdict.parts()]
    assert places == sorted(places)
    sentences = [" ".join(it.split()) for _, them in verdict.parts() for it in them]
    assert all(unbroken(it).replace("\u00a0", " ") in text.replace("\u00a0", " ") for it in sentences)
    assert places[-1] < text.index("Figure 1. Accuracy and fairness.") < text.index("Table 1. The conditions.")


@pytest.mark.long
def test_comparison_in_the_store_says_the_same_as_when_it_was_made(golden: Results) -> None:
    study = read_study(golden, "demo")
    made = compare(golden, "demo", level=0.2)
    rows, verdict = stored_or_made(golden, study)
    assert list(rows) == list(made.rows)
    assert verdict == made.verdict
    compare(golden, "demo")


@pytest.mark.long
def test_pdfs_are_made_on_request_and_stages_are_told(golden: Results) -> None:
    told: list[str] = []
    files = make_report(golden, "demo", with_pdf=True, progress=told.append)
    svgs = [name for name in files if name.endswith(".svg")]
    assert all(files[name.replace(".svg", ".pdf")].startswith(b"%PDF") for name in svgs)
    assert 'href="figures/overview.pdf"' in files["index.html"].decode()
    assert told == [
        "read sweep demo",
        "compare 6 conditions",
        "draw figures and make tables",
        f"render {len(svgs)} figures as SVG and PDF",
    ]


def test_all_numbers_of_runs_means_and_sds_are_those_of_the_study(
    golden: Results, golden_files: dict[str, bytes]
) -> None:
    study = read_study(golden, "demo")
    rows = list(csv.DictReader(io.StringIO(golden_files["tables/overview.csv"].decode())))
    values_T = {"accuracy": study.values("accuracy"), "EOD": study.fairness[0].metrics["equalized_odds_difference"]}
    for row, condition in zip(rows, study.conditions, strict=True):
        assert (row["condition"], int(row["n"])) == (condition.label, condition.n)
        for name, them_T in values_T.items():
            expected = spread(condition.over_runs(them_T))
            assert float(row[f"{name} (%)"]) == pytest.approx(100 * expected.mean)
            assert float(row[f"sd of {name} (%)"]) == pytest.approx(100 * expected.sd)


def test_page_needs_nothing_but_itself(golden_files: dict[str, bytes]) -> None:
    html = golden_files["index.html"].decode()
    tags = Tags(html)
    assert tags.count["svg"] == sum(name.endswith(".svg") for name in golden_files)
    assert tags.count["script"] == tags.count["style"] - tags.count["svg"] == 1
    assert not tags.handlers
    outside = [link for link in tags.links if not link.startswith(("#", "data:", "figures/", "tables/"))]
    assert not outside
    assert {link for link in tags.links if "/" in link and not link.startswith("data:")} <= set(golden_files)
    assert "url(http" not in html
    assert "default-src 'none'" in html


def test_ids_of_a_page_are_its_own(golden_files: dict[str, bytes]) -> None:
    html = golden_files["index.html"].decode()
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'href="#([^"]+)"', html)) | set(re.findall(r"url\(#([^)]+)\)", html))
    assert used <= set(ids)


def test_every_figure_and_table_is_there_in_its_forms(golden_files: dict[str, bytes]) -> None:
    stems = {name.rsplit(".", 1)[0] for name in golden_files if "/" in name}
    assert len(stems) > 15
    for stem in stems:
        suffixes = (".svg",) if stem.startswith("figures/") else (".csv", ".tex")
        assert all(golden_files.get(stem + suffix) for suffix in suffixes), stem
    assert not any(name.endswith(".pdf") for name in golden_files)


def test_hostile_names_stay_text(hostile_files: dict[str, bytes]) -> None:
    files = hostile_files
    html = files["index.html"].decode()
    assert Tags(html).count["script"] == 1
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    # Also inside drawings, where the name stands in a comment or as outlines.
    svgs = [content.decode() for name, content in files.items() if name.endswith(".svg")]
    assert not any("<script" in svg for svg in svgs)
    tex = files["tables/classes.tex"].decode()
    assert r"\textless{}script\textgreater{}alert(1)" in tex
    assert r"\$\textbackslash{}frac\$ \& 50\% \_x\textasciicircum{}" in tex
    assert HOSTILE[0] in files["tables/classes.csv"].decode()


@pytest.mark.parametrize(
    ("overrides", "expected", "absent"),
    [
        (["sensitive_features=[]", "intersections=[]"], "Accuracy of single classes", "Fairness between groups"),
        (["baselines=[]"], "distilled", "scratch n = "),
        (["grid.seed=[0]"], "a claim needs 3", "HINTS"),
        pytest.param(["grid.temperature=[4]"], "T=4", "Trends over temperature", marks=pytest.mark.long),
        pytest.param(
            ["grid.alpha=[0.1, 0.9]", "distillation={t_squared: true}"],
            "alpha=0.1",
            "more lines",
            marks=pytest.mark.long,
        ),
        pytest.param(
            ["grid.training.optimizer.lr=[0.1, 0.2]", "grid.temperature=[4]", "training.optimizer={name: sgd}"],
            "lr=0.2",
            "Trends over",
            marks=pytest.mark.long,
        ),
    ],
    ids=["no features", "no scratch", "one seed", "one temperature", "two alphas", "learning rates"],
)
def test_sweep_that_lacks_something_has_a_report(
    store: Store, overrides: list[str], expected: str, absent: str
) -> None:
    text = said(simulate(store, *overrides))
    assert expected in text
    assert absent not in text


def test_running_sweep_says_what_is_missing(hostile_files: dict[str, bytes]) -> None:
    text = text_of(hostile_files)
    assert "1 of 8 trials are missing (1 pending): this report is of the others." in text
    assert "1 of 8 trials is missing; numbers will change." in text


def test_sweep_without_a_complete_student_has_a_report_and_one_without_any_trial_has_none(tmp_path: Path) -> None:
    text = said(hostile_sweep(open_store(tmp_path / "a"), leave_out=6))
    assert "no complete distilled student" in text
    with pytest.raises(
        InvalidInputError, match=r"sweep demo: no complete trials yet; `kd-ray status demo` says how far it is"
    ):
        make_report(hostile_sweep(open_store(tmp_path / "b"), leave_out=8), "demo")


def test_unknown_sweep_is_refused_with_those_there_are(golden: Results) -> None:
    with pytest.raises(InvalidInputError, match=r"no sweep 'nope'; it has: demo"):
        make_report(golden, "nope")


def test_only_files_of_the_earlier_report_are_removed(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            "figures/a.svg": b"1",
            "files.json": b'["figures/a.svg", "../mine.txt", "figures/../../x"]',
            "index.html": b"old",
        },
    )
    (tmp_path / "figures" / "mine.svg").write_text("mine")
    outside = tmp_path.parent / "mine.txt"
    outside.write_text("mine")
    write_files(tmp_path, {"figures/b.svg": b"2", "files.json": b'["figures/b.svg"]', "index.html": b"new"})
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["figures/b.svg", "figures/mine.svg", "files.json", "index.html"]
    assert outside.exists()
    assert (tmp_path / "index.html").read_bytes() == b"new"


def test_folder_that_cannot_be_written_is_refused_by_name(golden: Results, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match=r"report folder .*file: cannot write"):
        write_files(tmp_path / "file", {"index.html": b""})


def test_a_folder_that_cannot_be_written_is_noticed_before_the_work(golden: Results, tmp_path: Path) -> None:
    """Guard: `check_folder`; a report takes a quarter of a minute and more."""
    (tmp_path / "file").write_text("")
    told: list[str] = []
    with pytest.raises(InvalidInputError, match=r"^report folder .*cannot write: Not a directory; say with -o DIR"):
        report(golden, "demo", tmp_path / "file" / "report", progress=told.append)
    assert told == []
    check_folder(tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.long
def test_who_may_only_read_a_store_can_compare(golden: Results) -> None:
    """Guard: `compare` gives its result without the write, and says why the store does not keep it."""

    class ReadOnly(Store):
        """A store in which nothing can be written."""

        def put(self, key: str, data: bytes, *, durable: bool = False) -> str:
            raise StoreError(f"store {self.url}: cannot write {key!r}: Permission denied")

    kept = compare(golden, "demo")
    found = compare(Results(ReadOnly(golden.store.url)), "demo")
    assert found.not_written is not None
    assert found.not_written.endswith("Permission denied")
    assert str(found.to_dict()) == str(kept.to_dict())


def test_store_that_is_no_folder_needs_an_output() -> None:
    class Remote(Store):
        """A store that is known by its URL only."""

        @property
        def local_root(self) -> Path | None:
            return None

    with pytest.raises(InvalidInputError, match=r"s3://lab is not a local folder; say with -o DIR"):
        report(Results(Remote("s3://lab")), "demo")


@pytest.mark.long
def test_command_writes_the_report_into_the_store_the_same_to_the_byte(
    golden: Results, golden_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KD_RAY_STORE", golden.store.url)
    done = CliRunner().invoke(cli, ["report", "demo"])
    assert done.exit_code == 0, done.output
    folder = Path(golden.store.url) / "reports" / "demo"
    assert done.output.startswith(f"report: {folder / 'index.html'} (")
    assert {str(it.relative_to(folder)): it.read_bytes() for it in folder.rglob("*") if it.is_file()} == golden_files
    # A report is in nobody's way.
    garbage = find_garbage(golden.store, older_than_s=0).garbage
    assert not [it for it in garbage if it.item.key.startswith("reports/")]


def test_python_refuses_as_the_command_does(golden: Results, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no sweep 'nope'; it has: demo"):
        kd_ray.report("nope", golden, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("normalise", "said", "not_said"), [("ratio", "÷ overall", "− overall"), ("difference", "− overall", "÷ overall")]
)
def test_a_class_is_said_to_be_divided_or_lessened_as_the_comparisons_were(
    tmp_path: Path, normalise: Literal["ratio", "difference"], said: str, not_said: str
) -> None:
    """Guard: after `--normalise difference` every caption of the report said that accuracies are divided."""
    results = golden_results(tmp_path / "store")
    rows, study = compare(results, "demo", normalise=normalise).rows, read_study(results, "demo")
    with drawing():
        sections = make_sections(study, make_evidence(rows, study), None)
    (section,) = [it for it in sections if it.name == "classes"]
    captions = [section.explanation, *(it.caption for it in section.drawings), *(it.caption for it in section.tables)]
    assert sum(f"accuracy {said} accuracy" in it for it in captions) == 5
    assert not any(not_said in it for it in captions)
