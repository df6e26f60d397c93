"""The admin of keys: who may do what, the parts of its pages, and its actions."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.db.models.functions import Length, Now
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from idempotency.models import IdempotencyKey, IdempotencyKeyQuerySet

from . import changelist, dashboard, display, evicting, export, wording

Keys = Collection[IdempotencyKey]


@admin.register(IdempotencyKey)
class IdempotencyKeyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not at run time
    """The list of keys, a page for each, and the ways to evict and to export them."""

    list_display = (
        display.short_key,
        display.state,
        display.short_scope,
        display.age,
        display.expiry,
        display.short_operation,
    )
    list_filter = (
        changelist.StateFilter,
        changelist.StatusCodeFilter,
        changelist.OperationFilter,
    )
    search_fields = ("key",)  # shows the box; what it does is `changelist.search`
    search_help_text = _("A key, a scope, both with a space or a colon between them, or an id.")
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_max_show_all = 0
    sortable_by = ()
    paginator = changelist.BoundedPaginator
    actions = ("evict", "export", "export_with_answers")

    class Media:
        css = {"all": ("idempotency/admin.css",)}  # noqa: RUF012  # Django declares it so

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Tell that nobody may: keys come from requests."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Tell that nobody may: it is what a client was told."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Tell that nobody may in Django's way, which would wait for a running request."""
        return False

    def has_evict_permission(self, request: HttpRequest) -> bool:
        """Tell whether the user may view keys and, by Django's permission, delete them."""
        may_delete = request.user.has_perm("idempotency.delete_idempotencykey")
        return may_delete and self.has_view_permission(request)

    def has_export_answers_permission(self, request: HttpRequest) -> bool:
        """Tell whether the user may see keys and answers."""
        may_view_answers = request.user.has_perm("idempotency.view_answer")
        return may_view_answers and self.has_view_permission(request)

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        """Allow no look-up but our own: others scan the table, or guess at hidden answers."""
        return any(lookup == its_filter.parameter_name for its_filter in self.list_filter)

    def get_queryset(self, request: HttpRequest) -> IdempotencyKeyQuerySet:
        """Read from the database that writes, as only that has the locks. Answers stay there."""
        keys = IdempotencyKey.objects.primary().with_state()
        return keys.annotate(now=Now(), size=Length("body")).defer("headers", "body")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Give the list that keeps within a window."""
        return changelist.KeyChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[Any, bool]:
        """Leave the list as it is, for it has searched before it was filtered."""
        return queryset, False

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list, and above it the dashboard."""
        context = {
            "dashboard": dashboard.Dashboard(changelist.WINDOW),
            "window": wording.number(changelist.WINDOW),
        }
        return super().changelist_view(request, context | (extra_context or {}))

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> IdempotencyKey | None:
        """Give the key of a page."""
        found = super().get_object(request, object_id, from_field)
        return changelist.settled(self.get_queryset(request), [found])[0] if found else None

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Show who holds the key if somebody does, and the answer to whoever may see it."""
        key: list[Any] = [display.whole_key, display.whole_scope, "operation"]
        key.append(display.state_explained)
        if obj and obj.state == IdempotencyKey.State.RUNNING:
            key.append(display.holder)
        times = [display.first_seen, display.completed, display.expires]
        request_fields = [*times, "attempts", display.last_error, display.fingerprint, "id"]
        sets = [(None, {"fields": key}), (_("Request"), {"fields": request_fields})]
        if obj and obj.status_code:
            hidden = [display.hidden_answer]
            shown = [display.headers, display.body]
            may_view = request.user.has_perm("idempotency.view_answer")
            answer = ["status_code", display.size, *(shown if may_view else hidden)]
            sets.append((_("Answer"), {"fields": answer}))
        return sets

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Give all of them."""
        fieldsets = self.get_fieldsets(request, obj)
        return [field for _name, options in fieldsets for field in options["fields"]]

    def get_urls(self) -> list[URLPattern]:
        """Add the page that evicts."""
        view = self.admin_site.admin_view(self.evict_view)
        return [path("evict/", view, name="idempotency_idempotencykey_evict"), *super().get_urls()]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Show a key's page, with the way to evict it."""
        context["has_evict_permission"] = self.has_evict_permission(request)
        return super().render_change_form(request, context, *args, **kwargs)

    def evict_view(self, request: HttpRequest) -> HttpResponse:
        """Ask whether to evict keys; do it when that has been answered."""
        if not self.has_evict_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return self._confirm_evict(request, self._found(request, request.GET.getlist("key")))
        seen = request.POST.getlist("seen")
        ids = [version.partition(" ")[0] for version in seen]
        self._tell(request, evicting.evict(self._found(request, ids), seen, request.user))
        return redirect(f"{self.admin_site.name}:idempotency_idempotencykey_changelist")

    @admin.action(description=_("Evict selected keys"), permissions=["evict"])
    def evict(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        """Ask whether to evict the ticked keys."""
        if request.POST.get("select_across") == "1":
            problem = _("Only keys of one page can be evicted at once. Nothing was done.")
            self.message_user(request, problem, messages.ERROR)
            return None
        return self._confirm_evict(request, self._ticked(request, queryset))

    @admin.action(description=_("Export selected keys"), permissions=["view"])
    def export(self, request: HttpRequest, queryset: Any) -> HttpResponseBase:
        """Send what is known of the ticked keys, as lines of JSON."""
        return export.json_lines(self._ticked(request, queryset), with_answers=False)

    # Django takes any one of several permissions for enough, so this is one that asks for both.
    @admin.action(
        description=_("Export selected keys with their answers"), permissions=["export_answers"]
    )
    def export_with_answers(self, request: HttpRequest, queryset: Any) -> HttpResponseBase:
        """Send the answers too."""
        return export.json_lines(self._ticked(request, queryset), with_answers=True)

    def _ticked(self, request: HttpRequest, queryset: Any) -> Any:
        """Give the keys that were ticked, though they may have left the list since."""
        if request.POST.get("select_across") == "1":
            return queryset
        return self._found(request, request.POST.getlist(ACTION_CHECKBOX_NAME))

    def _found(self, request: HttpRequest, ids: Collection[str]) -> IdempotencyKeyQuerySet:
        return self.get_queryset(request).filter(pk__in=filter(_is_uuid, ids)).order_by("pk")

    def _confirm_evict(self, request: HttpRequest, keys: Any) -> HttpResponse:
        if not keys:
            self.message_user(request, _("There is no such key any more."), messages.WARNING)
            return redirect(f"{self.admin_site.name}:idempotency_idempotencykey_changelist")
        context = {
            **self.admin_site.each_context(request),
            "title": gettext("Are you sure?"),
            "opts": self.opts,
            "media": self.media,
            "consequences": [
                evicting.Consequence.of(key)
                for key in changelist.settled(self.get_queryset(request), keys)
            ],
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/idempotency/idempotencykey/evict.html", context)

    def _tell(self, request: HttpRequest, done: evicting.Evicted) -> None:
        for level, keys, sentence in (
            (messages.SUCCESS, done.evicted, evicting.evicted),
            (messages.ERROR, done.running, evicting.running),
            (messages.WARNING, done.changed, evicting.changed),
        ):
            if keys:
                self.message_user(request, sentence(keys), level)


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
