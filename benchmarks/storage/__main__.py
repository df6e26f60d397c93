"""Print what a key takes to store: ``python -m benchmarks.storage --help``."""

import argparse

from benchmarks import database, rows, tables, traffic

from . import ageing, answers, cost, indexes, tenant, updates, vacuum

PARTS = {
    module.__name__.rpartition(".")[2]: module
    for module in (indexes, ageing, cost, updates, vacuum, answers, tenant)
}


def main() -> None:
    """Run the parts that were asked for, all by default."""
    parser = argparse.ArgumentParser("python -m benchmarks.storage", description=__doc__)
    more = tables.at_least
    parser.add_argument("--rows", type=more(1000), default=200_000, help="default: 200000")
    parser.add_argument("--requests", type=more(10), default=1_000, help="per design: 1000")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random: 1")
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}, only {', '.join(PARTS)}")
    with database.own_database():
        tables.begin(arguments)
        traffic.open_accounts()
        data = rows.Rows(
            count=arguments.rows, seed=arguments.seed, now=database.value("SELECT now()")
        )
        for name in arguments.parts or PARTS:
            PARTS[name].compare(data, arguments.requests)


if __name__ == "__main__":
    main()
