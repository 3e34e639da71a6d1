-- What is paid for: counted, bounded, held back when a provider asks for it, and kept for the next time.

create table {schema}.usage (
  vectorizer integer not null references {schema}.vectorizer on delete cascade,
  day date not null,
  requests bigint not null default 0,
  -- Asked for: in rows that were new or had changed. Sent: the rest was stored, cached or there twice.
  texts_asked bigint not null default 0,
  texts_sent bigint not null default 0,
  tokens_asked bigint not null default 0,
  tokens_sent bigint not null default 0,
  -- Whether the budget of the day was not enough.
  exhausted boolean not null default false,
  primary key (vectorizer, day)
) with (fillfactor = 50);
comment on table {schema}.usage is 'Texts and tokens by vectorizer and day (UTC): what was asked for and what was sent to the model.';

create table {schema}.provider (
  name text primary key,
  not_before timestamptz not null,
  reason text not null
);
comment on table {schema}.provider is 'Providers that asked for a pause: no worker sends them anything before.';

-- Only of vectorizers whose definition says cache. space: of which model and parameters, as a hash.
create table {schema}.cache (
  space bigint not null,
  content_hash bytea not null,
  embedding bytea not null,
  used_on date not null default current_date,
  primary key (space, content_hash)
) with (fillfactor = 90);
create index on {schema}.cache (used_on);
comment on table {schema}.cache is 'Vectors by model and text, for texts that come back: pgvector''s binary form.';
