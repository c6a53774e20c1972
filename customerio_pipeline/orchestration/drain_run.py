"""The run that loads: micro-batch after micro-batch until landing is empty or time is up."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

import dagster as dg
from pydantic import Field

from customerio_pipeline.errors import PipelineError
from customerio_pipeline.loading.load import Loader, drain
from customerio_pipeline.loading.report import LoadReport
from customerio_pipeline.loading.target import Target
from customerio_pipeline.orchestration.checks import landed_offsets_gapless
from customerio_pipeline.orchestration.column_facts import (
    data_lineage,
    data_schema,
    view_lineage,
)
from customerio_pipeline.orchestration.integrations import (
    CurrentLayout,
    check_is_loading,
    layout_of,
)
from customerio_pipeline.orchestration.keys import data_key, rejected_key, view_key
from customerio_pipeline.orchestration.metadata import (
    Metadata,
    Totals,
    batch_metadata,
    newest_rows,
    rejected_rows,
    row_count,
    run_metadata,
)
from customerio_pipeline.orchestration.run_log import warnings_in_run_log
from customerio_pipeline.orchestration.turns import Turn
from customerio_pipeline.settings import Settings
from customerio_pipeline.verifying.rebuilding import rebuild
from customerio_pipeline.warehouse import open_warehouse
from customerio_pipeline.warehouse.view_columns import VIEWS

_REPORT_SECONDS = 30
"""Under steady traffic a batch is loaded every second. A materialization with the table's columns
takes 10 KB of Dagster's storage: one for each batch would be a gigabyte a day."""


class DrainConfig(dg.Config):
    """How long a load goes on."""

    idle_seconds: float = Field(
        default=0, ge=0, description="Quiet time after which the run ends; 0: load and end."
    )
    max_seconds: float | None = Field(
        default=None, gt=0, description="Time after which the run ends at the next batch."
    )
    rebuild: bool = Field(
        default=False,
        description=(
            "Make the tables anew from landing beside the old ones, compare them, and swap them in"
            " one transaction."
        ),
    )
    compare_only: bool = Field(
        default=False,
        description="With rebuild: swap nothing; the run fails if there is a difference.",
    )


def drain_run(
    context: dg.AssetExecutionContext, settings: Settings, schema: str, config: DrainConfig
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Load what is pending; yield a result for each selected table, and check landing.

    Raises:
        dg.Failure: with one sentence; what was committed before stays, the next run goes on.
    """
    failure: dg.Failure | None = None
    if context.selected_asset_keys:
        try:
            with warnings_in_run_log(context), closing(open_warehouse(settings)) as target:
                run = _DrainRun(context, settings, schema, target)
                if config.rebuild:
                    run.rebuild(compare_only=config.compare_only)
                else:
                    run.load(config)
                yield from run.results()
        except PipelineError as error:
            failure = dg.Failure(description=str(error), allow_retries=False)
    if context.selected_asset_check_keys:
        yield landed_offsets_gapless(settings, schema)
    if failure is not None:
        raise failure


class _DrainRun:
    """Loads, and reports to Dagster: at once, then at most every `_REPORT_SECONDS`."""

    def __init__(
        self, context: dg.AssetExecutionContext, settings: Settings, schema: str, target: Target
    ) -> None:
        self._context = context
        self._settings = settings
        self._schema = schema
        self._target = target
        self._totals = Totals.of([])
        self._unreported: list[LoadReport] = []
        self._reported_at = time.monotonic()
        self._rebuilt: Metadata = {}

    def load(self, config: DrainConfig) -> None:
        """Load until the drain ends or the integration is paused."""
        integration = check_is_loading(self._settings, self._schema)
        layout = CurrentLayout(self._settings, integration)
        loader = Loader(
            self._schema,
            self._settings.landing,
            self._target,
            layout=layout,
            run_id=self._context.run.run_id,
        )
        if config.idle_seconds:
            # Somebody may be watching for the first event, and the run goes on after it.
            self._reported_at -= _REPORT_SECONDS
        turn = Turn(self._context.instance, config.max_seconds)
        batches = drain(loader, idle_seconds=config.idle_seconds, is_over=turn.is_over)
        try:
            for report in batches:
                self._unreported.append(report)
                if report.waiting:
                    self._context.log.info(
                        "Loaded %s events; %s deliveries are waiting.",
                        report.events,
                        report.waiting,
                    )
                for column in report.split_columns:
                    self._context.log.warning(
                        "A key has values of another type now: they go to the new column %s.",
                        column,
                    )
                if time.monotonic() - self._reported_at >= _REPORT_SECONDS:
                    self._report()
                    check_is_loading(self._settings, self._schema)
        except PipelineError:
            self._report()  # what was committed before
            raise
        finally:
            loader.close()
            layout.close()

    def rebuild(self, *, compare_only: bool) -> None:
        """Make the tables anew.

        Raises:
            dg.Failure: they are only compared, and differ.
        """
        integration = check_is_loading(self._settings, self._schema)
        found = rebuild(
            self._target,
            self._settings.landing,
            self._schema,
            layout_of(self._settings, integration),
            check=compare_only,
            run_id=self._context.run.run_id,
            progress=lambda report: self._context.log.info(
                "Loaded %s deliveries anew; %s are waiting.", report.deliveries, report.waiting
            ),
        )
        self._rebuilt = {
            "rebuilt_deliveries": found.deliveries,
            "rebuilt_rows": found.rows,
            "rows_different": found.different,
            "rows_before_rules": found.before_rules,
            "rows_missing": found.missing,
            "rows_surplus": found.surplus,
        }
        sentence = (
            f"{found.rows} rows from {found.deliveries} deliveries: {found.different} were"
            f" different, {found.missing} missing, {found.surplus} surplus."
        )
        if found.before_rules:
            sentence += (
                f" {found.before_rules} of the different ones were loaded before the rules on"
                " fields last changed."
            )
        if found.is_same:
            self._context.log.info(sentence)
            return
        examples = ", ".join(f"{each.event_id} ({each.what})" for each in found.examples)
        if compare_only:
            raise dg.Failure(
                description=f"The table is not what landing comes to. {sentence} {examples}",
                allow_retries=False,
            )
        self._context.log.warning("%s %s", sentence, examples)

    def results(self) -> Iterator[dg.MaterializeResult[None]]:
        """Yield what Dagster shows as the latest materialization of each selected table."""
        reports = self._take_unreported()
        if not self._totals.batches and not self._rebuilt:
            self._context.log.info("Nothing of %s is waiting in landing.", self._schema)
        metadata = self._metadata(reports)
        selected = self._context.selected_asset_keys
        if rejected_key(self._schema) not in selected and Totals.of(reports).rejected:
            self._log(rejected_key(self._schema), metadata)  # of the same transactions
        lineage = self._log_lineage() if data_key(self._schema) in selected else {}
        for key in sorted(selected):
            yield dg.MaterializeResult(
                asset_key=key,
                metadata={
                    **metadata.get(key, {}),
                    **lineage.get(key, {}),
                    **(self._rebuilt or run_metadata(self._totals)),
                },
            )

    def _log_lineage(self) -> dict[dg.AssetKey, Metadata]:
        """Tell Dagster from which columns those of the views come; return it for `data`.

        Once a run: it takes as much of Dagster's storage as the columns themselves.
        """
        columns = self._target.state(self._schema).table_columns
        if not columns:
            return {}
        for view in VIEWS:
            self._context.log_event(
                dg.AssetMaterialization(
                    view_key(self._schema, view),
                    metadata=view_lineage(self._schema, view, columns),
                )
            )
        return {data_key(self._schema): {**data_lineage(self._schema, columns)}}

    def _report(self) -> None:
        reports = self._take_unreported()
        if reports:
            metadata = self._metadata(reports)
            self._log(data_key(self._schema), metadata)
            if Totals.of(reports).rejected:
                self._log(rejected_key(self._schema), metadata)

    def _log(self, key: dg.AssetKey, metadata: Mapping[dg.AssetKey, Metadata]) -> None:
        self._context.log_event(dg.AssetMaterialization(key, metadata=metadata[key]))

    def _metadata(self, reports: Sequence[LoadReport]) -> dict[dg.AssetKey, Metadata]:
        """Describe what `reports` did to each table, and the tables as they are now."""
        state = self._target.state(self._schema)
        if not state.table_columns:
            return {}
        return {
            data_key(self._schema): {
                **(batch_metadata(reports) if reports else row_count(self._target, self._schema)),
                **data_schema(state),
                **newest_rows(self._target, self._schema, state.table_columns),
            },
            rejected_key(self._schema): {
                "events_rejected": Totals.of(reports).rejected,
                **rejected_rows(self._target, self._schema),
            },
        }

    def _take_unreported(self) -> list[LoadReport]:
        reports, self._unreported = self._unreported, []
        self._reported_at = time.monotonic()
        if reports:
            totals = Totals.of(reports)
            self._totals += totals
            self._context.log.info("Loaded %s.", totals.sentence)
        return reports
