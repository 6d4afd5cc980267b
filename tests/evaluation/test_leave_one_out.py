"""Quality without test photos: each of some photos is left out of a further fit, and compared with its render."""

from dataclasses import replace

import pytest

from splatfix.captures import open_capture
from splatfix.evaluation import leave_one_out
from splatfix.evaluation.results import read_results
from splatfix.fit import FitRunConfig, run_fit
from splatfix.report import write_report
from splatfix.report.load import load_runs
from splatfix.report.terminal import describe_run
from splatfix.sample import sample_path
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.train import FitConfig
from splatfix.views import ViewsConfig, make_split

ALL = ViewsConfig(num_train="all", size_px=32)
QUICK = FitRunConfig(
    video=False,
    estimate=2,
    views=ALL,
    initial=InitializationConfig(num_random=100, num_stereo=0, num_backdrop=0),
    fit=FitConfig(steps=4),
)


@pytest.fixture(scope="module")
def capture():
    return open_capture(sample_path(), longest_side_px=32)


def test_all_photos_are_trained_on(capture):
    split = make_split(capture, ALL)
    assert split.train_ids == capture.names
    assert split.test_ids == ()


def test_the_error_for_too_many_photos_names_the_remedy(capture):
    with pytest.raises(ValueError, match="or all, which leaves none to test on"):
        make_split(capture, ViewsConfig(num_train=len(capture.views)))


@pytest.mark.slow
def test_a_fit_of_all_photos_is_estimated_by_photos_left_out(capture, tmp_path, monkeypatch):
    fitted = []
    start_fit = leave_one_out.start_fit

    def record(scene, *rest, **named):
        fitted.append(scene)
        return start_fit(scene, *rest, **named)

    monkeypatch.setattr(leave_one_out, "start_fit", record)
    results = run_fit(sample_path(), tmp_path / "all", QUICK)
    first, last = capture.names[0], capture.names[-1]
    assert results.views == ()
    assert results.estimate is not None
    assert results.estimate.photos == (first, last)
    assert 3 < results.estimate.psnr < 40
    assert [set(capture.names) - {camera.name for camera in scene.cameras} for scene in fitted] == [{first}, {last}]
    assert read_results(tmp_path / "all") == results
    page = write_report([tmp_path / "all"])
    for text in (page.read_text(), describe_run(load_runs([tmp_path / "all"])[0], page)):
        assert f"estimated to reach {results.estimate.psnr:.2f} dB PSNR" in " ".join(text.split())


def test_no_estimate_is_made_where_photos_are_left_to_test_on(tmp_path):
    views = ViewsConfig(num_train=4, max_test=1, size_px=32)
    results = run_fit(sample_path(), tmp_path, replace(QUICK, views=views))
    assert results.estimate is None
    assert len(results.views) == 1


def test_a_negative_number_of_photos_is_refused():
    with pytest.raises(ValueError, match="estimate = -1"):
        replace(QUICK, estimate=-1)
