"""``pyvmm doctor``."""

import sys

import click

_MARKS = {"ok": ("ok  ", "green"), "info": ("    ", "cyan"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.option("--device", default="/dev/kvm", show_default=True, help="The KVM device to look at.")
def doctor(as_json: bool, device: str) -> None:
    """Say what this host offers, and what to do about what is missing.

    Exit code 0: guests can run here. 1: they cannot; each line marked FAIL says why and what to do.

    \b
    Examples:
      pyvmm doctor
      pyvmm doctor --json | jq '.findings[] | select(.status != "ok")'
    """
    from pyvmm.doctor import diagnose, usable

    findings = diagnose(device)
    good = usable(findings)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode({"usable": good, "findings": findings}))
    else:
        width = max(len(finding.name) for finding in findings)
        group = ""
        for finding in findings:
            if finding.group != group:
                group = finding.group
                click.secho(group, bold=True)
            mark, color = _MARKS[finding.status]
            click.echo(f"  {click.style(mark, fg=color)}  {finding.name:{width}}  {finding.value}")
            if finding.advice:
                click.echo(f"        {'':{width}}  -> {finding.advice}")
        click.echo()
        click.echo("This host can run guests." if good else "This host cannot run guests: see what is marked FAIL.")
    sys.exit(0 if good else 1)
