"""The page: holds the figures of the results, nothing from elsewhere, and survives what is missing."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest

from splatfix.evaluation import layout
from splatfix.evaluation.measure import summarize
from splatfix.evaluation.results import ARMS, write_results
from splatfix.files import read_json, write_json
from splatfix.images import write_image
from splatfix.report import write_report
from splatfix.report.charts import loss_lines
from splatfix.report.pictures import embed_crops
from splatfix.report.wording import baseline_arm, format_number
from splatfix.restoration.checkpoint import read_training_scenes
from splatfix.restoration.identity import describe_training_overlap
from splatfix.restoration.nafnet import SHIPPED_WEIGHTS
from splatfix.views import BANDS
from tests.report.make_run import make_results, make_run

VOID = {"meta", "link", "img", "input", "br", "line", "rect", "circle", "polygon", "polyline"}


class Page(HTMLParser):
    """Checks that elements nest, and gathers text and the addresses that a browser would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.addresses, self.words, self.tags = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        loading = ("src", "href", "poster", "srcset", "action")
        self.addresses += [(tag, value) for name, value in attrs if name in loading]
        assert not any(name.startswith("on") for name, _ in attrs), attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, _attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, f"</{tag}> out of place"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(path) -> Page:
    source = path.read_text(encoding="utf-8")
    without_data = re.sub(r"data:[a-z0-9/+]+;base64,[A-Za-z0-9+/=]+", "data:", source)
    assert "http://" not in without_data and "https://" not in without_data and "@import" not in without_data
    page = Page(source)
    loaded = [address for tag, address in page.addresses if tag != "a"]
    assert all(address.startswith("data:") for address in loaded), loaded
    for address in (address for tag, address in page.addresses if tag == "a" and not address.startswith("#")):
        assert (path.parent / unquote(address)).is_file(), address
    assert page.tags.count("script") == 1  # ours
    assert len(source) < 6_000_000
    return page


def test_a_loop_run_shows_its_figures(tmp_path):
    results = make_run(tmp_path / "run")
    path = write_report([tmp_path / "run"])
    assert path == tmp_path / "run" / "report.html"
    page = read(path)
    for band in ("all", *BANDS):
        for column in (*ARMS, "gain"):
            psnr, ssim = (results.summary.value(band, column, metric) for metric in ("psnr", "ssim"))
            assert format_number(psnr, 2, signed=column == "gain") in page.text, (band, column)
            assert format_number(ssim, 3, signed=column == "gain") in page.text, (band, column)
    gain = results.summary.value("all", "gain", "psnr")
    assert "made this splat better" in page.text and f"is {gain:.2f} ± 0.16 dB higher" in page.text
    assert "no weights of VGG-16 on disk" in page.text and "LPIPS was not measured" in page.text
    assert "<h3>PSNR, dB</h3>" in path.read_text() and "<h3>LPIPS</h3>" not in path.read_text()
    assert "<li><b>LPIPS</b>: no weights of VGG-16 on disk" in path.read_text()
    assert "castle & <b>moat</b>" in page.text and "</pre><script>" in page.text and "2 <files>" in page.text
    assert 'b<script>alert(1)</script>"&.png' in page.text and "猫 7.jpg" in page.text
    assert "61.7" in page.text and "1 min 01 s" in page.text and "9.9" in page.text
    assert page.tags.count("video") == 1 and page.tags.count("svg") > 3
    assert page.tags.count("input") > 5


def test_the_representative_views_are_the_median_the_extremes_and_the_bands(tmp_path):
    make_run(tmp_path)
    text = read(write_report([tmp_path])).text
    for role in ("median gain", "largest gain", "smallest gain", "median of near", "median of mid", "median of far"):
        assert role in text


def test_a_loss_is_called_a_loss(tmp_path):
    make_run(tmp_path, shift=-3.0)
    text = read(write_report([tmp_path])).text
    assert "did not help" in text and "made this splat better" not in text and "use control.ply" in text


@pytest.mark.parametrize(("shift", "figure"), [(-1.38, "+0.02 ± 0.16 dB"), (-1.15, "+0.25 ± 0.16 dB")])
def test_a_change_within_noise_is_called_that(tmp_path, shift, figure):
    make_run(tmp_path, shift=shift)
    page = read(write_report([tmp_path]))
    assert "No difference beyond noise" in page.text and figure in page.text
    assert "made this splat better" not in page.text and "twice that" in page.text


def test_disagreeing_metrics_are_said_to_disagree(tmp_path):
    results = make_run(tmp_path)
    views = [replace(view, after={**view.after, "ssim": view.after["ssim"] - 0.05}) for view in results.views]
    write_results(tmp_path, replace(results, views=tuple(views), summary=summarize(views)))
    assert "The metrics disagree: SSIM fell by 0.050" in read(write_report([tmp_path])).text


def test_two_test_photos_give_no_error(tmp_path):
    results = make_run(tmp_path)
    views = results.views[:2]
    write_results(tmp_path, replace(results, views=views, summary=summarize(views)))
    text = read(write_report([tmp_path])).text
    assert "From 2 test photos no error of the gain can be given." in text and " ± " not in text


@pytest.mark.parametrize(
    ("arm", "sentence"), [("before", "From 2 photos, the fit reaches"), ("after", "The splat reaches")]
)
def test_a_run_with_one_arm(tmp_path, arm, sentence):
    make_run(tmp_path, arms=(arm,), restorer=None)
    page = read(write_report([tmp_path]))
    assert sentence in page.text and "dB PSNR on 7 test photos" in page.text
    assert "gain" not in page.text


def test_only_results_without_any_picture(tmp_path):
    views = [
        replace(view, band="near" if view.band == "mid" else view.band, control=None)
        for view in make_run(tmp_path / "full").views
    ]
    views[0] = replace(views[0], after={"psnr": None, "ssim": None, "lpips": None})
    write_results(tmp_path / "bare", make_results(views, seconds={}, reasons={}))
    page = read(write_report([tmp_path / "bare"]))
    assert "—" in page.text and "No reason was recorded" in page.text and "img" not in page.tags


def test_nothing_measured(tmp_path):
    write_results(tmp_path, make_results([]))
    assert "Nothing could be measured" in read(write_report([tmp_path])).text


def test_a_large_video_is_linked_not_embedded(tmp_path):
    make_run(tmp_path)
    (tmp_path / "path.mp4").write_bytes(bytes(3_100_000))
    source = write_report([tmp_path]).read_text(encoding="utf-8")
    assert 'href="path.mp4"' in source and "<video" not in source


def test_a_broken_picture_is_left_out(tmp_path):
    make_run(tmp_path)
    for path in (tmp_path / "images").glob("*/after.jpg"):
        path.write_bytes(path.read_bytes()[:100])
    read(write_report([tmp_path]))


def test_masks_are_shown_below_the_repaired_views_that_have_them(tmp_path):
    make_run(tmp_path)
    without = read(write_report([tmp_path])).text
    assert "masked" not in without and "artifact mask" not in without
    mask = np.zeros((24, 36), np.float32)
    mask[:6] = 1
    write_image(layout.repair_path(tmp_path, 1, "r0", "mask"), mask)
    layout.repair_path(tmp_path, 1, "r1", "mask").write_bytes(b"broken")
    page = read(write_report([tmp_path]))
    assert page.text.count("% masked") == 1 and "25.0 % masked" in page.text and "artifact mask" in page.text


def test_several_runs_are_compared(tmp_path):
    make_run(tmp_path / "one", restorer="identity", shift=-0.9)
    make_run(tmp_path / "two", restorer="nafnet")
    path = write_report([tmp_path / "one", tmp_path / "two"], tmp_path / "page.html")
    page = read(path)
    assert path == tmp_path / "page.html" and "two gained most" in page.text and "identity" in page.text
    assert '<th scope="col">SSIM</th>' in path.read_text() and '<th scope="col">LPIPS</th>' not in path.read_text()


def test_a_comparison_never_replaces_the_page_of_a_run(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        make_run(folder)
    page = write_report(folders[:1]).read_bytes()
    assert write_report(folders) == tmp_path / "one" / "comparison.html"
    with pytest.raises(ValueError, match=r"report\.html: is the page of one of the compared runs"):
        write_report(folders, tmp_path / "two" / ".." / "one" / "report.html")
    assert (tmp_path / "one" / "report.html").read_bytes() == page


def test_a_page_may_go_into_a_folder_or_a_file(tmp_path):
    make_run(tmp_path / "run")
    assert write_report([tmp_path / "run"], tmp_path / "new") == tmp_path / "new" / "report.html"
    assert write_report([tmp_path / "run"] * 2, tmp_path / "new") == tmp_path / "new" / "comparison.html"
    assert write_report([tmp_path / "run"], tmp_path / "x.HTML") == tmp_path / "x.HTML"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "new", "x.HTML"}


def test_runs_on_other_photos_are_not_ranked(tmp_path):
    make_run(tmp_path / "one")
    results = make_run(tmp_path / "two")
    write_results(tmp_path / "two", replace(results, capture="elsewhere"))
    page = read(write_report([tmp_path / "one", tmp_path / "two"]))
    assert "differ in capture: their figures must not be ranked" in page.text
    assert "gained most" not in page.text and "largest PSNR gain" not in page.text
    assert "A view of each run" in page.text and "one: d.jpg" in page.text and "two: d.jpg" in page.text
    assert page.tags.count("img") >= 2 * len(("photo", "before", "after"))


@pytest.mark.parametrize(("shift", "tone"), [(0.0, "good"), (-1.15, "plain")])
def test_the_tone_of_a_comparison_follows_the_noise_of_its_best_run(tmp_path, shift, tone):
    make_run(tmp_path / "one", shift=shift)
    make_run(tmp_path / "two", shift=shift - 0.5)
    assert f'class="headline {tone}"' in write_report([tmp_path / "one", tmp_path / "two"]).read_text()


def test_long_names_of_runs_are_whole_beside_the_bars(tmp_path):
    names = ["harbor_nafnet_seed_0_320px", "harbor_warp_seed_0_320px"]
    for name in names:
        make_run(tmp_path / name)
    page = write_report([tmp_path / name for name in names]).read_text()
    bars = page[page.index('id="bands"') : page.index("</figure>", page.index('id="bands"'))]
    assert all(name in bars for name in names)


def test_the_only_gain_of_a_comparison_is_no_range(tmp_path):
    make_run(tmp_path / "fit", arms=("before",), restorer=None)
    make_run(tmp_path / "loop")
    text = read(write_report([tmp_path / "fit", tmp_path / "loop"])).text
    assert re.search(r"2 runs on [^:]+: a PSNR gain of \+1\.40 dB\.", text) and "gains from" not in text


def test_a_comparison_says_which_restorer_was_trained_on_the_capture(tmp_path):
    make_run(tmp_path / "one")
    make_run(tmp_path / "two", shift=-0.9)
    record = read_json(tmp_path / "one" / "run.json")
    [note] = describe_training_overlap("nafnet", min(read_training_scenes(SHIPPED_WEIGHTS)))
    write_json(tmp_path / "one" / "run.json", {**record, "notes": ["2 files", note]})
    text = read(write_report([tmp_path / "one", tmp_path / "two"])).text
    assert f"one: {note}." in text and "2 files" not in text
    assert "gained most" not in text and "largest PSNR gain" not in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no results.json"),
        ("{", "not valid JSON"),
        ("[]", "wanted a mapping"),
        ('{"schema": 2}', "reads schema 1"),
    ],
)
def test_errors_name_the_file(tmp_path, content, message):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        write_report([tmp_path])
    assert str(tmp_path) in str(caught.value)


def test_no_folder(tmp_path):
    with pytest.raises(ValueError, match="no such run folder"):
        write_report([tmp_path / "none"])
    with pytest.raises(ValueError, match="at least one"):
        write_report([])


def test_a_history_of_other_records_is_an_error_of_the_file(tmp_path):
    make_run(tmp_path)
    (tmp_path / "history.json").write_text("[[1]]")
    with pytest.raises(ValueError, match=r"history\.json: record 0 = \[1\]; wanted a mapping"):
        write_report([tmp_path])


def test_the_picture_at_the_top_shows_what_the_headline_compares(tmp_path):
    results = make_run(tmp_path)
    assert baseline_arm(results) == "control"
    name = next(view.name for view in results.views if view.name == "d.jpg")  # the median
    render = np.full((24, 36, 3), 0.5)
    write_image(layout.image_path(tmp_path, name, "control"), render)
    render[12:20, 24:32] = 1.0
    write_image(layout.image_path(tmp_path, name, "after"), render)
    source = write_report([tmp_path]).read_text(encoding="utf-8")
    hero = source[source.index('class="hero-view"') : source.index('id="results"')]
    assert 'data-first="control" data-second="after"' in hero and "differs most from control" in hero
    paths = {arm: layout.image_path(tmp_path, name, arm) for arm in ("control", "after", "photo")}
    crops = embed_crops(paths, "control", "after")
    assert list(crops) == ["control", "after", "photo"]
    assert crops["after"]["box"] == pytest.approx((24 / 36, 12 / 24, 8 / 36, 8 / 24), abs=1.1 / 36)
    assert embed_crops(paths, "control", "control") == {}


def test_the_page_links_to_its_sections_and_files_wherever_it_is(tmp_path):
    make_run(tmp_path / "run")
    (tmp_path / "run" / "after.ply").write_bytes(bytes(2_340_000))
    page = read(write_report([tmp_path / "run"], tmp_path / "pages"))
    links = [address for tag, address in page.addresses if tag == "a"]
    assert "../run/after.ply" in links and "../run/path.mp4" in links and "#views" in links
    assert "after.ply 2.3 MB" in page.text and f"splatfix view {tmp_path / 'run'}" in page.text


def test_times_commits_and_stages_are_readable(tmp_path):
    results = make_run(tmp_path)
    write_results(tmp_path, replace(results, seconds={"choose": 0.0, "fit": 61.0}))
    commit = "0123456789abcdef0123456789abcdef01234567"
    write_json(tmp_path / "run.json", {"commit": commit, "finished": "2026-11-28T08:10:17+00:00"})
    text = read(write_report([tmp_path])).text
    assert "choose" not in text and commit not in text and commit[:12] in text
    assert "28 Nov 2026, 08:10 UTC" in text


def test_losses_of_photos_and_repaired_views_are_two_lines():
    history = [{"arm": "after", "step": s, "loss": 0.1 + (s % 2), "repaired": bool(s % 2)} for s in range(1, 9)]
    assert loss_lines(history) == ["after", "after, repaired views"]
    assert loss_lines([{"arm": "after", "step": s, "loss": 0.1} for s in range(3)]) == ["after"]  # of an older run
