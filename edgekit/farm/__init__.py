"""The farm: models x boards as a queue of jobs on dask.distributed, and one report over all of them.

    plan      models and settings -> artifacts -> jobs (one artifact on one board)
    worker    a host with boards: a dask worker for each, which takes one job at a time
    scheduler the way to a scheduler, and the boards behind it
    run       the client: feeds every board, retries nothing that failed by itself, gives up on bad boards
    state     the journal of a run: what is finished survives a kill and is not measured again
    report    journal + history -> report.json
    page      report.json -> HTML, Markdown

In: build directories and boards of an inventory. Out: results, records in the history, a report.
A job measures through edgekit.device.measure, as `edgekit bench` does. `distributed` is imported inside
functions only: the rest of edgekit works without it.
"""
