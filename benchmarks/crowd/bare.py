"""The shop with one view more, that takes no keys: the same payment, in a transaction.

``gunicorn benchmarks.crowd.bare``. What keys cost is told by comparison with it.
"""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

from django.db.transaction import atomic  # noqa: E402  # not before Django is set up
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402
from django.views.decorators.http import require_POST  # noqa: E402

from testproject import urls  # noqa: E402
from testproject.shop.auth import authenticated  # noqa: E402
from testproject.shop.models import Account  # noqa: E402
from testproject.shop.payments import Order, answer, take  # noqa: E402


@csrf_exempt
@require_POST
@authenticated
@atomic
def pay(request: HttpRequest) -> HttpResponse:
    """Take a payment, once more for each time that it is sent."""
    order = Order.from_json(request.body)
    account = Account.objects.get(user=request.user.pk)
    return answer(order, take(account, order))


urls.urlpatterns.append(path("payments/bare/", pay))
