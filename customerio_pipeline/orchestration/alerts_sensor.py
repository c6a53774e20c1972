"""The sensor that tells people of trouble, and when it is over."""

import time

import dagster as dg

from customerio_pipeline.alerting.telling import Told
from customerio_pipeline.alerting.ways import ways
from customerio_pipeline.orchestration.keys import data_key
from customerio_pipeline.orchestration.troubles import troubles
from customerio_pipeline.settings import Settings

_INTERVAL_SECONDS = 20


def alerts_sensor(settings: Settings, schemas: list[str]) -> dg.SensorDefinition:
    """Build the sensor for all integrations."""

    @dg.sensor(
        name="alerts_sensor",
        description="Tells people of failed runs and checks, once, and when that is over.",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        chosen = ways(settings)
        if not chosen:
            return dg.SensorResult(skip_reason="No alerts are set up.")
        repository = context.repository_def
        if repository is None:
            raise dg.Failure("The sensor needs a repository.", allow_retries=False)
        graph = repository.asset_graph
        now = time.time()
        told = Told.from_text(context.cursor)
        told.see(
            troubles(
                context.instance,
                [name for name in repository.job_names if not name.startswith("__")],
                sorted(graph.asset_check_keys, key=str),
                [data_key(schema) for schema in schemas],
                settings.dagster_url,
            ),
            now,
        )
        problems = told.tell(chosen, now, settings.alert_after_seconds)
        for problem in problems:
            context.log.warning(problem)
        reason = " ".join(problems) or f"{len(told.troubles)} troubles now."
        return dg.SensorResult(skip_reason=reason, cursor=told.to_text())

    return sensor
