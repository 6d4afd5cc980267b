"""Logging of the process: loggers that are quiet for a while."""

import logging
import threading

from splatfix.process import quiet


def test_quiet_loggers_drop_what_is_below_the_level(caplog):
    with caplog.at_level(logging.INFO):
        with quiet("noisy.library", "noisy.other"):
            logging.getLogger("noisy.library.part").info("detail")
            logging.getLogger("noisy.library").warning("trouble")
        logging.getLogger("noisy.library").info("after")
    assert [record.message for record in caplog.records] == ["trouble", "after"]


def test_quiet_may_be_nested_and_overlap_in_threads():
    logger = logging.getLogger("noisy.nested")
    logger.setLevel(logging.DEBUG)
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with quiet("noisy.nested", level=logging.CRITICAL):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=work)
    with quiet("noisy.nested"):
        assert logger.level == logging.WARNING
        thread.start()
        assert inside.wait(10)
        assert logger.level == logging.CRITICAL
    assert logger.level == logging.CRITICAL
    leave.set()
    thread.join(10)
    assert logger.level == logging.DEBUG
