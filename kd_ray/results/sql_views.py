"""What `query` offers besides the tables: views and table functions in SQL, one entry each."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SqlView:
    """A view or a table function of SQL."""

    signature: str
    """Its name, with the arguments of a table function."""
    meaning: str
    tables: tuple[str, ...]
    """Tables that it reads."""
    sql: str
    """The statement that creates it."""


_SAMPLES = """(
    SELECT * REPLACE (sensitive_features::JSON::MAP(VARCHAR, VARCHAR[]) AS sensitive_features) FROM samples)"""
"""The table `samples` with groups by feature, read from the text of each sample once."""

_PAIR = """
WITH p AS (
    SELECT a.sweep, a.dataset_id, unnest(a.predictions) AS of_a, unnest(b.predictions) AS of_b,
           unnest(range(len(a.predictions))) AS sample_index
    FROM (SELECT * FROM predictions WHERE trial_id = a LIMIT 1) a, (SELECT * FROM predictions WHERE trial_id = b LIMIT 1) b
    WHERE a.dataset_id = b.dataset_id)
"""

_PAIRS = """
WITH pairs AS (
    SELECT sweep, trial_id, teacher_trial_id FROM trials WHERE role = 'distilled'
    UNION
    SELECT s.sweep, s.trial_id, d.teacher_trial_id
    FROM trials s JOIN trials d ON s.role = 'scratch' AND d.role = 'distilled'
        AND (s.sweep, s.seed, s.model, s.dataset_id) = (d.sweep, d.seed, d.model, d.dataset_id)
        AND list_has_all(map_entries(d.settings::JSON::MAP(VARCHAR, VARCHAR)), map_entries(s.settings::JSON::MAP(VARCHAR, VARCHAR)))),
long AS (
    SELECT q.*, s.dataset_id, unnest(s.predictions) AS student, unnest(t.predictions) AS teaching,
           unnest(range(len(s.predictions))) AS sample_index
    FROM pairs q
    JOIN predictions s ON (s.sweep, s.trial_id) = (q.sweep, q.trial_id)
    JOIN predictions t ON (t.sweep, t.trial_id) = (q.sweep, q.teacher_trial_id))"""
"""Every student beside its teacher, a row for each test sample; scratch students beside the teachers of distilled ones of their seed."""

_LONG = f"""
WITH long AS (
    SELECT p.sweep, p.trial_id, p.dataset_id, unnest(p.predictions) AS predicted, unnest(p.confidences)::DOUBLE AS confidence,
           unnest(p.calibrated_confidences)::DOUBLE AS calibrated, unnest(range(len(p.predictions))) AS sample_index
    FROM predictions p),
judged AS (
    SELECT l.*, x.label, x.label_name, x.sensitive_features, (l.predicted = x.label)::INTEGER AS correct
    FROM long l JOIN {_SAMPLES} x ON (x.sweep, x.dataset_id, x.sample_index) = (l.sweep, l.dataset_id, l.sample_index))"""
"""Every prediction beside its label."""

_PARTS = """
parts AS (
    SELECT {columns}, NULL::VARCHAR AS class_name, NULL::VARCHAR AS feature, NULL::VARCHAR AS "group" FROM judged
    UNION ALL
    SELECT {columns}, label_name, NULL, NULL FROM judged
    UNION ALL
    SELECT {columns}, NULL, entry.key, unnest(entry.value)
    FROM (SELECT *, unnest(map_entries(sensitive_features)) AS entry FROM judged))"""
"""Every row of `judged` once for all (no class, no feature), once for its true class, and once for each of its groups (no class)."""

SQL_VIEWS = {
    view.signature.split("(")[0]: view
    for view in (
        SqlView(
            signature="teacher_disagreement",
            meaning=(
                "every student beside its teacher: share of test samples on which they differ (CMP), all (class_name is null) "
                "and per true class"
            ),
            tables=("trials", "predictions", "samples"),
            sql=f"""
CREATE VIEW teacher_disagreement AS
{_PAIRS},
counts AS (
    SELECT l.sweep, l.trial_id, l.teacher_trial_id, x.label_name AS class_name, count(*) AS n,
           count(*) FILTER (l.student <> l.teaching) AS num_disagree
    FROM long l JOIN samples x ON (x.sweep, x.dataset_id, x.sample_index) = (l.sweep, l.dataset_id, l.sample_index)
    GROUP BY GROUPING SETS ((1, 2, 3, x.label_name), (1, 2, 3)))
SELECT t.sweep, t.trial_id, t.role, t.model, t.objective, t.temperature, t.alpha, t.t_squared, t.seed, c.teacher_trial_id,
       c.class_name, c.n, c.num_disagree, c.num_disagree / c.n AS disagreement
FROM counts c JOIN trials t USING (sweep, trial_id)
""",
        ),
        SqlView(
            signature="teacher_errors",
            meaning=(
                "every student beside its teacher, all (class_name and feature are null), per true class and per "
                "group: where the teacher errs, how often the "
                "student says the same; scratch students show how often that is chance"
            ),
            tables=("trials", "predictions", "samples"),
            sql=f"""
CREATE VIEW teacher_errors AS
{_PAIRS},
judged AS (
    SELECT l.*, x.label, x.label_name, x.sensitive_features
    FROM long l JOIN {_SAMPLES} x ON (x.sweep, x.dataset_id, x.sample_index) = (l.sweep, l.dataset_id, l.sample_index)),
{_PARTS.format(columns="sweep, trial_id, teacher_trial_id, teaching <> label AS is_error, student = teaching AS agrees")}
SELECT t.sweep, t.trial_id, t.role, t.model, t.objective, t.temperature, t.alpha, t.t_squared, t.seed, p.teacher_trial_id,
       p.class_name, p.feature, p."group", count(*) AS n, count(*) FILTER (is_error) AS num_teacher_errors,
       count(*) FILTER (is_error AND agrees) AS num_transferred,
       count(*) FILTER (is_error AND agrees) / nullif(count(*) FILTER (is_error), 0) AS transfer_rate
FROM parts p JOIN trials t USING (sweep, trial_id) GROUP BY ALL
""",
        ),
        SqlView(
            signature="calibration",
            meaning=(
                "every trial, all (class_name and feature are null), per true class and per group: accuracy, "
                "mean confidence and expected calibration error (15 "
                "bins), and the last two after temperature scaling"
            ),
            tables=("trials", "predictions", "samples"),
            sql=f"""
CREATE VIEW calibration AS
{_LONG},
{_PARTS.format(columns="sweep, trial_id, correct, confidence, calibrated")},
scored AS (
    SELECT *, FALSE AS is_scaled FROM parts
    UNION ALL
    SELECT * REPLACE (calibrated AS confidence), TRUE FROM parts WHERE calibrated IS NOT NULL),
bins AS (
    SELECT sweep, trial_id, class_name, feature, "group", is_scaled, greatest(1, least(15, ceil(confidence * 15))) AS bin,
           count(*) AS n, sum(correct) AS num_correct, sum(confidence) AS confidence
    FROM scored GROUP BY ALL)
SELECT t.sweep, t.trial_id, t.role, t.model, t.objective, t.temperature, t.alpha, t.t_squared, t.seed,
       b.class_name, b.feature, b."group", (sum(b.n) FILTER (NOT is_scaled))::BIGINT AS n,
       sum(b.num_correct) / sum(b.n) AS accuracy,
       sum(b.confidence) FILTER (NOT is_scaled) / sum(b.n) FILTER (NOT is_scaled) AS confidence,
       sum(abs(b.num_correct - b.confidence)) FILTER (NOT is_scaled) / sum(b.n) FILTER (NOT is_scaled)
           AS expected_calibration_error,
       sum(b.confidence) FILTER (is_scaled) / sum(b.n) FILTER (is_scaled) AS calibrated_confidence,
       sum(abs(b.num_correct - b.confidence)) FILTER (is_scaled) / sum(b.n) FILTER (is_scaled)
           AS calibrated_expected_calibration_error
FROM bins b JOIN trials t USING (sweep, trial_id) GROUP BY ALL
""",
        ),
        SqlView(
            signature="gradient_rescaling",
            meaning=(
                "distilled students of sweeps that ask for it, all (class_name and feature are null), per true class "
                "and per group: how many times as hard as the"
                " cross-entropy the loss pulls at the true logit, summed over samples and at their median (Tang et al. 2020)"
            ),
            tables=("trials", "predictions", "samples"),
            sql=f"""
CREATE VIEW gradient_rescaling AS
WITH long AS (
    SELECT p.sweep, p.trial_id, p.dataset_id, unnest(p.true_logit_pulls)::DOUBLE AS pull,
           1 - unnest(p.true_probabilities)::DOUBLE AS hard_pull, unnest(range(len(p.predictions))) AS sample_index
    FROM predictions p WHERE p.true_logit_pulls IS NOT NULL),
judged AS (
    SELECT l.*, x.label_name, x.sensitive_features
    FROM long l JOIN {_SAMPLES} x ON (x.sweep, x.dataset_id, x.sample_index) = (l.sweep, l.dataset_id, l.sample_index)),
{_PARTS.format(columns="sweep, trial_id, pull, hard_pull")}
SELECT t.sweep, t.trial_id, t.role, t.model, t.objective, t.temperature, t.alpha, t.t_squared, t.seed,
       p.class_name, p.feature, p."group", count(*) AS n, sum(p.pull) / nullif(sum(p.hard_pull), 0) AS rescaling,
       median(p.pull / nullif(p.hard_pull, 0)) AS median_rescaling
FROM parts p JOIN trials t USING (sweep, trial_id) GROUP BY ALL
""",
        ),
        SqlView(
            signature="class_shares",
            meaning=(
                "every trial, head (33 % of the classes, by training samples), medium and tail: accuracy over their test "
                "samples, and mean over their classes"
            ),
            tables=("class_metrics",),
            # The shares of `distill/objectives/decoupled.py:thirds`.
            sql="""
CREATE VIEW class_shares AS
WITH ranked AS (
    SELECT *, row_number() OVER (PARTITION BY sweep, trial_id ORDER BY train_n DESC, class_index) AS place,
           (33 * count(*) OVER (PARTITION BY sweep, trial_id) + 50) // 100 AS side,
           count(*) OVER (PARTITION BY sweep, trial_id) AS of_all
    FROM class_metrics WHERE train_n IS NOT NULL)
SELECT sweep, trial_id, role, model, objective, temperature, alpha, t_squared, seed,
       CASE WHEN place <= side THEN 'head' WHEN place > of_all - side THEN 'tail' ELSE 'medium' END AS share,
       count(*) AS num_classes, sum(train_n)::BIGINT AS train_n, sum(n)::BIGINT AS n,
       sum(num_correct) / nullif(sum(n), 0) AS accuracy, avg(accuracy) AS mean_class_accuracy
FROM ranked GROUP BY ALL
""",
        ),
        SqlView(
            signature="worst_classes(k)",
            meaning=(
                "table function: mean accuracy of the k worst classes (below 1: a share of them), chosen on one half of the "
                "test samples and scored on the other, both ways; where it was chosen it is too low"
            ),
            tables=("trials", "predictions", "samples"),
            # The halves of `metrics/calibration.py:halves`.
            sql=f"""
CREATE MACRO worst_classes(k) AS TABLE
{_LONG},
halves AS (
    SELECT sweep, trial_id, label, (sample_index * 2654435761 // 65536) % 2 AS half, avg(correct) AS accuracy
    FROM judged GROUP BY ALL),
ranked AS (
    SELECT a.sweep, a.trial_id, a.half, a.accuracy AS chosen, b.accuracy AS held_out,
           row_number() OVER (PARTITION BY a.sweep, a.trial_id, a.half ORDER BY a.accuracy, a.label) AS place,
           count(*) OVER (PARTITION BY a.sweep, a.trial_id, a.half) AS num_classes
    FROM halves a JOIN halves b ON (a.sweep, a.trial_id, a.label, 1 - a.half) = (b.sweep, b.trial_id, b.label, b.half)),
worst AS (SELECT * FROM ranked WHERE place <= CASE WHEN k < 1 THEN ceil(k * num_classes) ELSE k END)
SELECT t.sweep, t.trial_id, t.role, t.model, t.objective, t.temperature, t.alpha, t.t_squared, t.seed,
       count(*) FILTER (w.half = 0) AS num_worst, avg(w.held_out) AS accuracy, avg(w.chosen) AS accuracy_where_chosen
FROM worst w JOIN trials t USING (sweep, trial_id) GROUP BY ALL
""",
        ),
        SqlView(
            signature="disagreement(a, b)",
            meaning="table function: the same for any two trials, given by trial_id",
            tables=("predictions", "samples"),
            sql=f"""
CREATE MACRO disagreement(a, b) AS TABLE
{_PAIR}
SELECT x.label_name AS class_name, count(*) AS n, count(*) FILTER (of_a <> of_b) AS num_disagree,
       count(*) FILTER (of_a <> of_b) / nullif(count(*), 0) AS disagreement
FROM p JOIN samples x ON (x.sweep, x.dataset_id, x.sample_index) = (p.sweep, p.dataset_id, p.sample_index)
GROUP BY GROUPING SETS ((x.label_name), ()) ORDER BY class_name NULLS FIRST
""",
        ),
        SqlView(
            signature="disagreement_matrix(a, b)",
            meaning="table function: counts of (class predicted by a, class predicted by b) where they differ",
            tables=("predictions", "class_metrics"),
            sql=f"""
CREATE MACRO disagreement_matrix(a, b) AS TABLE
{_PAIR},
names AS (SELECT DISTINCT class_index, class_name FROM class_metrics WHERE trial_id = a)
SELECT na.class_name AS predicted_by_a, nb.class_name AS predicted_by_b, count(*) AS n
FROM p JOIN names na ON na.class_index = of_a JOIN names nb ON nb.class_index = of_b
WHERE of_a <> of_b GROUP BY ALL ORDER BY ALL
""",
        ),
    )
}
"""By name, in the order in which they are shown."""
