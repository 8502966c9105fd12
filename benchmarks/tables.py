"""The default agent against scikit-learn's HistGradientBoosting, on tables that ship with scikit-learn.

    python benchmarks/tables.py            # all tables, 2 minutes of one core
    python benchmarks/tables.py wine       # one of them

Both with their default settings, in five-fold cross-validation: every row is held out once, and nothing is
chosen by the figures. Accuracy in percent, or 100 R2. scikit-learn ships no table with words; the two with
`words` are its tables with some columns as words: sex and decade of age of the diabetes patients, and ten
measurements of the tumours as one of five words each, by quintiles.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.model_selection import KFold, StratifiedKFold

from antelope import ml

FOLDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    names = parser.parse_args().tables or list(TABLES)
    print(
        f"{'table':24} {'rows':>5} {'columns':>7}  {'ml':>12}  {'boosting':>12}  difference    s, ml"
    )
    for name in names:
        table = TABLES[name]()
        ours, theirs, seconds = compared(table)
        row = f"{name:24} {len(table):5} {table.shape[1] - 1:7}  {mean(ours)}  {mean(theirs)}"
        print(f"{row}  {np.mean(ours) - np.mean(theirs):+10.1f}  {seconds:7.1f}", flush=True)


def compared(table: pd.DataFrame) -> tuple[list[float], list[float], float]:
    """Scores of both on each fold, and the seconds that ours took in all."""
    classes = not pd.api.types.is_float_dtype(table["target"])
    kind = StratifiedKFold if classes else KFold
    ours, theirs, seconds = [], [], 0.0
    folds = kind(FOLDS, shuffle=True, random_state=0)
    for seed, (train, test) in enumerate(folds.split(table, table["target"])):
        parts = table.iloc[train], table.iloc[test]
        start = time.perf_counter()
        ours.append(100 * learnt(*parts, seed=seed, metric="accuracy" if classes else "r2"))
        seconds += time.perf_counter() - start
        theirs.append(100 * boosted(*parts, seed=seed, classes=classes))
    return ours, theirs, seconds


def learnt(train: pd.DataFrame, test: pd.DataFrame, *, seed: int, metric: str) -> float:
    """The default agent's score on `test`."""
    with tempfile.TemporaryDirectory() as path:
        run = ml(
            dataset=train,
            test_dataset=test,
            target="target",
            seed=seed,
            path=f"{path}/run",
            plot=False,
            progress=False,
        )
        return run.metrics[metric]


def boosted(train: pd.DataFrame, test: pd.DataFrame, *, seed: int, classes: bool) -> float:
    """The score of HistGradientBoosting on `test`; words are categories to it, too."""
    kind: Any = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    model = kind(random_state=seed)
    columns = [name for name in train if name != "target"]
    both = pd.concat([train[columns], test[columns]])
    words = both.select_dtypes(exclude="number").columns
    both = both.astype(dict.fromkeys(words, "category"))
    model.fit(both[: len(train)], train["target"])
    return float(model.score(both[len(train) :], test["target"]))


def mean(scores: list[float]) -> str:
    """`97.4 +- 1.2`: mean and standard deviation over the folds."""
    return f"{np.mean(scores):6.1f} +-{np.std(scores):4.1f}"


def breast_cancer() -> pd.DataFrame:
    return datasets.load_breast_cancer(as_frame=True).frame


def wine() -> pd.DataFrame:
    return datasets.load_wine(as_frame=True).frame


def digits() -> pd.DataFrame:
    return datasets.load_digits(as_frame=True).frame


def diabetes() -> pd.DataFrame:
    return datasets.load_diabetes(as_frame=True, scaled=False).frame


def diabetes_words() -> pd.DataFrame:
    table = diabetes()
    table["sex"] = table["sex"].map({1.0: "one", 2.0: "two"})
    table["age"] = (table["age"] // 10).astype(int).map("{0}0 to {0}9".format)
    return table


def breast_cancer_words() -> pd.DataFrame:
    table = breast_cancer()
    words = ["tiny", "small", "medium", "large", "huge"]
    for column in table.columns[:10]:
        table[column] = pd.qcut(table[column], 5, labels=words).astype(str)
    return table


TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    "breast_cancer": breast_cancer,
    "wine": wine,
    "digits": digits,
    "diabetes": diabetes,
    "breast_cancer_words": breast_cancer_words,
    "diabetes_words": diabetes_words,
}

if __name__ == "__main__":
    main()
