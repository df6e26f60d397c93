"""The two customers and the clerk everybody knows, with passwords and tokens everybody may know."""

from typing import Final, NamedTuple

from django.contrib.auth.models import User

from .models import Account


class Customer(NamedTuple):
    """A seeded user and how to log in as them."""

    name: str
    password: str
    token: str


class Clerk(NamedTuple):
    """A seeded user of the admin."""

    name: str
    password: str


CLERK: Final = Clerk("clerk", "clerk-password")
ALICE: Final = Customer("alice", "alice-password", "alice-token")
BOB: Final = Customer("bob", "bob-password", "bob-token")


def seed() -> list[Account]:
    """Create alice, bob and the clerk where missing; existing accounts keep their balance."""
    if not User.objects.filter(username=CLERK.name).exists():
        User.objects.create_superuser(CLERK.name, password=CLERK.password)
    accounts = []
    for customer in (ALICE, BOB):
        user, created = User.objects.get_or_create(username=customer.name)
        if created:
            user.set_password(customer.password)
            user.save()
        account, _ = Account.objects.get_or_create(user=user, defaults={"token": customer.token})
        accounts.append(account)
    return accounts
