"""How good, how sure, and compared with what.

::

    from care_bridge import evaluate_pairs, read_pairs, write_report

    found = evaluate_pairs(predictor, read_pairs("noisy", "clean"), training=read_pairs("train/noisy", "train/clean"))
    write_report(found, "report.html")
"""

from care_bridge.evaluate.evaluation import Evaluation
from care_bridge.evaluate.measure import evaluate
from care_bridge.evaluate.pairs import Pair, read_pairs
from care_bridge.evaluate.report import report_page, write_json, write_report
from care_bridge.page import NOT_FOR_QUANTIFICATION

__all__ = [
    "NOT_FOR_QUANTIFICATION",
    "Evaluation",
    "Pair",
    "evaluate",
    "read_pairs",
    "report_page",
    "write_json",
    "write_report",
]
