"""Collections on a real TimescaleDB: hypertables made by us, and those timescale_vector made."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from collections_of import KINDS, clients
from psycopg.errors import FeatureNotSupported, UndefinedFile
from time_partitioned import DAY, JANUARY, SCENARIOS, contents, filled, inclusive_bounds, version_7

from vectorizer import client
from vectorizer.errors import ConfigurationError
from vectorizer.testing.pytest_plugin import database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.needs_apt

# As timescale_vector 0.0.7 lays a collection out: the function knows version 1 alone, and cuts
# to milliseconds.
THEIRS = """
create function public.uuid_timestamp(uuid uuid) returns timestamptz
language plpgsql immutable parallel safe strict as $$
declare bytes bytea := uuid_send(uuid);
begin
  if (get_byte(bytes, 6) >> 4)::int2 != 1 then
    raise exception 'UUID version is not 1';
  end if;
  return to_timestamp(((
    (('x' || encode(substring(bytes from 7 for 2), 'hex'))::bit(16)::bigint & 4095) << 48
    | (('x' || encode(substring(bytes from 5 for 2), 'hex'))::bit(16)::bigint << 32)
    | ('x' || encode(substring(bytes from 1 for 4), 'hex'))::bit(32)::bigint) - 122192928000000000)
    / 10000 / 1000::double precision);
end $$;
create table theirs (id uuid primary key, metadata jsonb, contents text, embedding vector(2));
create index theirs_meta_idx on theirs using gin (metadata jsonb_path_ops);
select create_hypertable('theirs', 'id', time_partitioning_func => 'public.uuid_timestamp',
  chunk_time_interval => interval '6 hours');
"""


@pytest.fixture
def timescaledb_url(postgres17_template: tuple[str, str]) -> Iterator[str]:
    """URL of a fresh database with pgvector and TimescaleDB."""
    with database(*postgres17_template) as url:
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("create extension timescaledb")
        except (FeatureNotSupported, UndefinedFile) as error:
            pytest.skip(f"the server has no TimescaleDB: {error}")
        yield url


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, timescaledb_url: str) -> Iterator[Callable[..., Any]]:
    with clients(request.param, timescaledb_url) as make:
        yield make


@pytest.fixture
def db(timescaledb_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(timescaledb_url, autocommit=True) as connection:
        yield connection


def hypertables(db: psycopg.Connection) -> list[str]:
    found = db.execute("select hypertable_name::text from timescaledb_information.hypertables")
    return [name for (name,) in found]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_documented(
    make: Callable[..., Any], db: psycopg.Connection, scenario: Callable[[Any], None]
) -> None:
    store = filled(make)
    assert hypertables(db) == ["time_partitioned_table"]
    scenario(store)


def test_native_partitions_on_request(make: Callable[..., Any], db: psycopg.Connection) -> None:
    store = filled(make, partitioning="native")
    assert hypertables(db) == []
    inclusive_bounds(store)


def test_the_extension_is_created_on_request(
    make: Callable[..., Any], db: psycopg.Connection
) -> None:
    db.execute("drop extension timescaledb")
    store = filled(make, partitioning="timescaledb")
    assert hypertables(db) == ["time_partitioned_table"]
    assert contents(store.search([1.0, 9.0])) == ["2018", "2019"]


@pytest.fixture
def theirs(make: Callable[..., Any], db: psycopg.Connection) -> Any:
    for statement in re.split(r"(?<=;)\n(?=create|select)", THEIRS):
        db.execute(statement)
    db.execute(
        "insert into theirs values (%s, '{\"times\": 1}', '2018', '[1,1.3]'),"
        " (%s, '{\"times\": 100}', '2019', '[1,10.8]')",
        [client.uuid_from_time(JANUARY), client.uuid_from_time(JANUARY + 365 * DAY)],
    )
    return make("theirs", 2, time_partition_interval=timedelta(hours=6))


@pytest.mark.parametrize(
    "scenario",
    [scenario for scenario in SCENARIOS if scenario.__name__ != "ids_of_version_7"],
    ids=lambda scenario: scenario.__name__,
)
def test_a_hypertable_of_theirs(theirs: Any, scenario: Callable[[Any], None]) -> None:
    theirs.create_tables()
    scenario(theirs)


def test_their_function_knows_no_version_7(theirs: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"record 0: .*uuid_timestamp.*version 1"):
        theirs.upsert([(version_7(JANUARY), {}, "x", [1, 2])])
    theirs.delete_by_ids([version_7(JANUARY), uuid.uuid4()])
    assert theirs.count() == 2


def test_a_hypertable_is_opened_by_a_client_that_knows_nothing_of_it(
    theirs: Any, make: Callable[..., Any]
) -> None:
    plain = make("theirs", 2)
    plain.upsert([(client.uuid_from_time(JANUARY + DAY), {}, "new", [1, 2])])
    wanted = client.UUIDTimeRange(JANUARY, time_delta=2 * DAY)
    assert contents(plain.search([1, 2], uuid_time_filter=wanted)) == ["2018", "new"]
    assert contents(theirs.search([1, 2])) == ["2018", "2019", "new"]


def test_a_time_filter_leaves_chunks_out(theirs: Any, db: psycopg.Connection) -> None:
    wanted = client.UUIDTimeRange(JANUARY, time_delta=DAY)
    assert contents(theirs.search(uuid_time_filter=wanted)) == ["2018"]
    condition, values = wanted.build_query([])
    plan = psycopg.RawCursor(db).execute(f"explain select * from theirs where {condition}", values)
    scanned = set(re.findall(r"_hyper_\w+_chunk", " ".join(row[0] for row in plan)))
    assert len(scanned) == 1, scanned
