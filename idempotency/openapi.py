"""The OpenAPI extension: drf-spectacular documents what the doors do, with no work by the user.

`apps` imports this room where drf-spectacular is installed, and that registers it. It stands around
the schema that a view has anyway, be it the framework's, a subclass, or one of ``@extend_schema``,
and adds to the operation that comes out of it what `operations` says.
"""

from abc import ABC
from copy import deepcopy
from functools import partial
from inspect import cleandoc, getattr_static, isfunction
from itertools import takewhile
from typing import Any

from drf_spectacular.drainage import warn
from drf_spectacular.extensions import OpenApiViewExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentRegistry, ResolvedComponent, append_meta
from drf_spectacular.settings import spectacular_settings

from .drf import IdempotencyMixin, KeyStatusView
from .operations import Json, Operation
from .options import Options


class IdempotentView(ABC):  # noqa: B024  # its subclasses are virtual
    """What this room documents: classes with the mixin, ``@idempotent`` below ``@api_view``, and
    the status of a key."""

    @classmethod
    def __subclasshook__(cls, view: type) -> bool:
        methods = getattr(view, "http_method_names", ())
        return issubclass(view, (IdempotencyMixin, KeyStatusView)) or any(
            _function_options(view, method) for method in methods
        )


class IdempotencyExtension(OpenApiViewExtension):  # type: ignore[no-untyped-call]
    """Puts `IdempotentSchema` around the schema of our views."""

    target_class = IdempotentView
    match_subclasses = True
    priority = 1000
    """Only the first extension that knows a view is asked. This one asks the next in its turn."""

    def view_replacement(self) -> Any:
        """Give the view's class, or what another extension has for it, with our schema.

        The same for all its methods and paths: drf-spectacular counts the classes it meets.
        """
        target = self._replaced_by_another()
        if isinstance(getattr_static(target, "schema"), _Around):
            return target  # another thread has put it in the view's place, for a moment
        if "_with_idempotency" not in vars(target):
            target._with_idempotency = _subclass(target)  # noqa: SLF001  # goes when the class goes
        return target._with_idempotency  # noqa: SLF001

    def _replaced_by_another(self) -> Any:
        others = [extension for extension in self._registry if extension is not type(self)]
        for extension in sorted(others, key=lambda other: other.priority, reverse=True):
            if extension._matches(self.target):  # noqa: SLF001  # as get_match() does
                return extension(self.target_callback).view_replacement()
        return self.target


def _subclass(target: Any) -> Any:
    body = {name: getattr(target, name) for name in ("__doc__", "__module__", "__qualname__")}
    if issubclass(target, KeyStatusView):
        # Without one, drf-spectacular would say that it misses it.
        body["serializer_class"] = getattr(target, "serializer_class", None)
    body["schema"] = _Around(getattr_static(target, "schema"))
    return type(target)(target.__name__, (target,), body)


class _Around:
    """The attribute ``schema`` of a view's class, in place of another one."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __get__(self, view: Any, owner: type) -> Any:
        schema = self.inner.__get__(view, owner)
        if view is None or not isinstance(schema, AutoSchema):
            return schema  # with a foreign one, drf-spectacular says what is wrong
        return IdempotentSchema(schema, view)

    def __set__(self, view: Any, schema: Any) -> None:
        self.inner.__set__(view, schema)


class IdempotentSchema(AutoSchema):
    """Asks the schema that a view has anyway, and completes the operations it gives."""

    def __init__(self, wrapped: AutoSchema, view: Any) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.view = view

    def get_operation(
        self, path: str, path_regex: str, path_prefix: str, method: str, registry: ComponentRegistry
    ) -> Json | None:
        """Give the operation of the wrapped schema, with ours in it."""
        spec = self.wrapped.get_operation(path, path_regex, path_prefix, method, registry)
        if not spec:
            return spec
        operation = Operation(spec, method, path, partial(_component, registry))
        if isinstance(self.view, KeyStatusView):
            operation.tell_key_state()
        elif options := _options(self.view, method):
            operation.take_key(options)
        if spec.get("description") == cleandoc(IdempotencyMixin.__doc__ or ""):
            del spec["description"]
            if description := _description(type(self.view)):
                spec["description"] = description
        return spec


def _component(registry: ComponentRegistry, name: str, schema: Json) -> Json:
    """Register a component of the schema, and give the reference to it."""
    schema = deepcopy(schema)  # hooks of the project may change it
    if "properties" in schema:  # OpenAPI 3.1 has another word for null
        found = {name: append_meta(it, {}) for name, it in schema["properties"].items()}
        schema["properties"] = found
    component = ResolvedComponent(  # type: ignore[no-untyped-call]
        name, ResolvedComponent.SCHEMA, schema, object=name
    )
    registry.register_on_missing(component)
    reference: Json = component.ref
    return reference


def _options(view: Any, method: str) -> Options | None:
    """Give what the view asks of its door; None where the method may have no key."""
    if isinstance(view, IdempotencyMixin):
        try:
            options: Options | None = view.get_idempotency_options()
        except Exception as error:
            warn(f"get_idempotency_options() must do with a mocked request, and raised {error!r}.")
            return None
    else:
        options = _function_options(type(view), method)
    return options if options and options.honour(method) else None


def _function_options(view: type, method: str) -> Options | None:
    """Find the options of ``@idempotent`` below ``@api_view``, which keeps the function in a cell
    of each method and nowhere else."""
    handler = getattr(view, method.lower(), None)
    cells = getattr(handler, "__closure__", None) or ()
    functions = (cell.cell_contents for cell in cells if isfunction(cell.cell_contents))
    marked = (vars(function).get("idempotency_options") for function in functions)
    return next(filter(None, marked), None)


def _description(view: type) -> str:
    """Give a view's or its bases' docstring as drf-spectacular does, but never the mixin's."""
    excluded = spectacular_settings.GET_LIB_DOC_EXCLUDES()
    ours = takewhile(lambda base: base not in excluded, view.__mro__)
    documented = (base.__doc__ for base in ours if base.__doc__ and base is not IdempotencyMixin)
    return cleandoc(next(documented, ""))
