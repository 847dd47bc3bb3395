"""`tenfold doctor`: whether the layers of a run's network learn, and what to try where not."""

from tenfold.cli.options import PlaceOption, RunArgument, ThreadsOption
from tenfold.console.output import Output
from tenfold.formatting import percent


def doctor(
    output: Output,
    run: RunArgument,
    data: PlaceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Look for dead units, vanishing gradients and wrong step sizes, and say what to try."""
    from tenfold.run import finished_run

    folder = finished_run(run)

    from tenfold.files import write_text
    from tenfold.reporting.diagnostics import layer_chart
    from tenfold.reporting.svg import standalone_svg
    from tenfold.training.doctor import diagnose
    from tenfold.training.process import prepare_process

    prepare_process(threads)
    with output.progress() as progress:
        found = diagnose(folder, data=data, progress=progress)
    for activation in found.activations:
        output.record("activation", **activation._asdict())
    for layer in found.layers:
        output.record("layer", **layer._asdict())
    title = f"Layers of {run}, on {found.num_images} training images"
    rows = [[layer.name, f"{layer.gradient:.1e}", f"{layer.update:.1e}"] for layer in found.layers]
    output.table(title, ["layer", "gradient (RMS)", "update over weight"], rows)
    rows = [[each.name, str(each.num_units), percent(each.dead)] for each in found.activations]
    output.table("Activations", ["in", "units", "dead"], rows)
    for finding in found.findings:
        output.record("finding", **finding._asdict())
        output.say(finding.sentence, bold=True)
    if not found.findings:
        output.say("Nothing is wrong: units, gradients and steps are as they usually are.")
    figure = folder.path / "figures" / "doctor.svg"
    write_text(figure, standalone_svg(layer_chart(found)))
    output.record("figure", path=str(figure))
    output.say(f"The figure is {figure}.")
