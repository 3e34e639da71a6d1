-- A definition can be changed. What readers must not see half done, another model above all, becomes a
-- generation of its own beside the one that serves, and takes its place when it has caught up.

alter table {schema}.vectorizer
  drop constraint vectorizer_name_key,
  add column generation integer not null default 1,
  add column serving boolean not null default true,
  -- Whether it serves by itself as soon as it has caught up.
  add column takes_over boolean not null default false,
  -- What the names of its log, ledger, triggers and functions begin with.
  add column label text,
  -- Changes in place for which every row had to be compared again: part of source_hash.
  add column revision integer not null default 0;
update {schema}.vectorizer set label = name;
alter table {schema}.vectorizer
  alter column label set not null,
  add unique (name, generation);
create unique index on {schema}.vectorizer (name) where serving;
comment on column {schema}.vectorizer.serving is 'Whether the view that readers search shows this generation.';

-- What a new generation has to have done before it serves: everything that was committed by then.
alter table {schema}.progress add column catch_up_to timestamptz;

-- Functions whose parameters change are made anew after this.
drop function if exists {schema}.install(text, regclass, jsonb);
drop function if exists {schema}.create_view(text, jsonb, jsonb, regclass);
drop function if exists {schema}.create_destination(text, jsonb, jsonb);
