"""``megu certificate`` and ``megu export``: documents made from a dossier for others to read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from megu.cli.common import project_if_any
from megu.core.errors import MeguError
from megu.core.project import Project

TargetArgument = Annotated[
    str, typer.Argument(help="An MLflow run id, models:/name/version or @alias, or a dossier's folder.", show_default=False)
]
KeysOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--key", metavar="FILE", help="A public key (PEM) whose signature is accepted. Repeatable; default: the project's own."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""

    @app.command("certificate")
    def certificate_command(
        target: Annotated[
            str | None, typer.Argument(help="An MLflow run id, models:/name/version or @alias, or a dossier's folder.")
        ] = None,
        request: Annotated[
            str | None, typer.Option(metavar="ID", help="Instead of a dossier: make the page of one fulfilled request.")
        ] = None,
        language: Annotated[str, typer.Option(metavar="CODE", help="Language of a request's page: en, de.")] = "en",
        out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")] = Path("certificate.html"),
        key: KeysOption = None,
    ) -> None:
        """Make a page for a regulator or a data subject: one HTML file, which a browser prints on A4.

        From a dossier: what was done and measured. From a request: what became of it, and of no other request.
        """
        if (target is None) == (request is None):
            raise MeguError("a certificate needs a dossier or a request", "specify a run, or --request ID")
        if target is None:
            page, badge, checked = _of_request(project_if_any(), str(request), language)
            _written({out.name: page.encode()}, out.parent)
            print(f"{out}: {badge}. {checked}")
            return
        from megu.lineage.keys import read_public
        from megu.lineage.reading import dossier_of
        from megu.lineage.verify.run import verify
        from megu.report.certificate import certificate, render

        here = project_if_any()
        found = dossier_of(target, here)
        report = verify(target, here, trusted=[read_public(path) for path in key or ()])
        said = certificate(found, report, datetime.now(UTC))
        _written({out.name: render(said).encode()}, out.parent)
        print(f"{out}: {said.badge}. {said.checked}")

    @app.command("export")
    def export_command(
        target: TargetArgument,
        form: Annotated[
            str, typer.Option("--format", metavar="FORM", help="openlineage, prov, intoto, model-card, or all.")
        ] = "all",
        out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder for the files.")] = Path("exports"),
    ) -> None:
        """Export a dossier in other tools' formats: OpenLineage, W3C PROV, in-toto with SLSA provenance, a model card."""
        from megu.lineage.export import exported
        from megu.lineage.keys import Keys, signer
        from megu.lineage.reading import dossier_of

        here = project_if_any()
        found = dossier_of(target, here)
        files = exported(found, form, signer(Keys(here.keys), _named_key(here)) if here else None)
        _written(files, out)
        for name in files:
            print(out / name)


def _of_request(here: Project | None, request: str, language: str) -> tuple[str, str, str]:
    """Return the page of a request, its badge and the outcome of checking the evidence."""
    from megu.core.settings.sections import section
    from megu.erasure.params import PurgeParams
    from megu.promotion.params import PromotionParams, RegistryParams
    from megu.report.certificate.language import read
    from megu.report.certificate.request import facts
    from megu.report.certificate.request_page import RequestPage, render_request
    from megu.requests.request import RequestParams

    if here is None:
        raise MeguError("a request is known only in its project", "run this inside the project, or set MEGU_PROJECT")
    spoken = read(language)
    found = facts(
        here,
        request,
        section(here.params, "requests", RequestParams),
        section(here.params, "registry", RegistryParams),
        section(here.params, "promotion", PromotionParams),
        section(here.params, "purge", PurgeParams),
        datetime.now(UTC),
    )
    page = RequestPage(found, spoken)
    return render_request(found, spoken), page.badge, page.checked


def _named_key(here: Project) -> Path | None:
    """Return the signing key that ``params.yaml`` specifies."""
    from megu.config import tree as config

    named = config.load(here.params).lineage.key
    return here.root / named if named else None


def _written(files: dict[str, bytes], folder: Path) -> None:
    from megu.core.files.store import writing

    for name, content in files.items():
        try:
            with writing(folder / name) as temporary:
                temporary.write_bytes(content)
                temporary.chmod(0o644)
        except OSError as error:
            raise MeguError(
                f"{folder / name} cannot be written ({error.strerror})", "specify another place with --out"
            ) from None
