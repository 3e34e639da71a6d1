-- Definitions: what may be said in one, and how it is said.

-- What each option may be; the columns are looked up later.
create or replace function {schema}.check_options(definition jsonb) returns void
language plpgsql as $$
declare
  rule record;
begin
  for rule in
    select * from (values
      ('chunk_column', '$.type() == "string"', 'the name of a column'),
      ('time_column', '$.type() == "string"', 'the name of a column'),
      ('template', '$.type() == "string" && $ like_regex "[{{]chunk[}}]"', 'a text with {{chunk}} and other columns in braces'),
      ('metadata', '$.type() == "array" && !exists($[*] ? (@.type() != "string"))', 'a list of column names'),
      ('key', '$.type() == "array" && $.size() > 0 && !exists($[*] ? (@.type() != "string"))', 'a list of column names'),
      ('partition_interval', '$.type() == "string"', 'an interval such as "30 days"'),
      ('retention', '$.type() == "string"', 'an interval such as "365 days"'),
      ('destination', '$.type() == "string"', 'the name of a view, with or without a schema'),
      ('embedder', '$.type() == "object"', 'an object such as {{"provider": "minilm"}}'),
      ('model', '$.type() == "string" && $ != ""', 'the name of a model'),
      ('dimensions', '$.type() == "number" && $ >= 1 && $ <= 16000 && $ == $.floor()', 'a whole number from 1 to 16000'),
      ('chunk_size', '$.type() == "array" && $.size() == 2 && !exists($[*] ? (@.type() != "number" || @ != @.floor())) && $[0] >= 1 && $[0] <= $[1]',
        'two whole numbers, the least and the most characters of a chunk'),
      ('chunk_overlap', '$.type() == "number" && $ >= 0 && $ == $.floor()', 'a whole number, 0 or more'),
      ('splitter', '$ == "text" || $ == "markdown" || $ == "html" || $ == "none"', '"text", "markdown", "html" or "none"'),
      ('chunk_unit', '$ == "characters" || $ == "tokens"', '"characters" or "tokens"'),
      ('vectors', '$ == "vector" || $ == "halfvec"', '"vector" or "halfvec"'),
      ('on_long_text', '$ == "split" || $ == "truncate" || $ == "dead-letter"', '"split", "truncate" or "dead-letter"'),
      ('joined', '$.type() == "object" && $.query.type() == "string" && !exists($.keyvalue() ? (@.key == "parents" && @.value.type() != "object")) && !exists($.keyvalue() ? (@.key == "parents").value.keyvalue() ? (@.value.type() != "array"))',
        'an object with a query and, by table, the columns of the query that hold the key of a parent'),
      ('index', '$ == "hnsw" || $ == "ivfflat"', '"hnsw" or "ivfflat"'),
      ('cache', '$.type() == "boolean"', 'true or false'),
      ('max_tokens_per_day', '$.type() == "number" && $ >= 1 && $ == $.floor()', 'a whole number, 1 or more'),
      ('where', '$.type() == "string"', 'an SQL condition over columns of the table'),
      ('always', '$.type() == "boolean"', 'true or false')
    ) as r(option, test, wanted)
    where definition ? option
  loop
    if not coalesce(jsonb_path_match(definition -> rule.option, ('strict ' || rule.test)::jsonpath, silent => true), false) then
      perform {schema}.fail('VZ002', format('%s is %s', rule.option, definition -> rule.option), 'it has to be ' || rule.wanted);
    end if;
  end loop;
end $$;

-- A fixed length of time in whole seconds, so that "30 days" and "720 hours" are the same; months and
-- years have none.
create or replace function {schema}.seconds_of(option text, given text) returns bigint
language plpgsql stable as $$
declare
  seconds numeric;
begin
  begin
    if extract(month from given::interval) = 0 and extract(year from given::interval) = 0 then
      seconds := extract(epoch from given::interval);
    end if;
  exception when data_exception then
    seconds := null;
  end;
  if seconds is null or seconds < 3600 or seconds <> floor(seconds) then
    perform {schema}.fail('VZ002', format('%s %s is not usable', option, to_json(given)),
      'give a fixed length of an hour or more, in hours, days or weeks, such as "30 days"');
  end if;
  return seconds;
end $$;

-- Defaults filled in and spellings made one, so that two definitions can be compared.
create or replace function {schema}.normalize(definition jsonb) returns jsonb
language plpgsql stable as $$
declare
  result jsonb := jsonb_strip_nulls(definition);
  allowed constant text[] := array['chunk_column', 'template', 'metadata', 'time_column', 'key',
    'partition_interval', 'retention', 'destination', 'embedder', 'model', 'dimensions', 'chunk_size', 'chunk_overlap',
    'splitter', 'chunk_unit', 'vectors', 'on_long_text', 'joined', 'index', 'cache', 'max_tokens_per_day', 'where', 'always'];
  unknown text;
begin
  if jsonb_typeof(definition) <> 'object' then
    perform {schema}.fail('VZ002', 'the definition is no JSON object',
      'give options by name, such as: chunk_column, model, dimensions');
  end if;
  select k into unknown from jsonb_object_keys(result) as k where k <> all (allowed) limit 1;
  if unknown is not null then
    perform {schema}.fail('VZ002', format('the definition has an unknown option %s', to_json(unknown)),
      'the options are: ' || array_to_string(allowed, ', '));
  end if;
  perform {schema}.check_options(result);
  if result ? 'chunk_column' then
    result := jsonb_build_object('metadata', '[]'::jsonb, 'chunk_size', '[500, 1000]'::jsonb,
      'chunk_overlap', 0, 'embedder', '{{}}'::jsonb) || result;
    if not result ? 'model' or not result ? 'dimensions' then
      perform {schema}.fail('VZ002', 'the definition lacks "model" or "dimensions"',
        'name the model and the number of dimensions of its vectors');
    end if;
  end if;
  if result ? 'joined' then
    result := jsonb_set(result, '{{joined,query}}', to_jsonb(btrim(result -> 'joined' ->> 'query', E' \t\r\n;')));
  end if;
  if result ? 'retention' and not (result ? 'partition_interval' and result ? 'time_column') then
    perform {schema}.fail('VZ002', 'retention needs "time_column" and "partition_interval"',
      'name the column that says how old a row is, and how wide a partition is: whole partitions are dropped');
  end if;
  select result || coalesce(jsonb_object_agg(k, {schema}.seconds_of(k, result ->> k) || ' seconds'), '{{}}') into result
  from unnest(array['partition_interval', 'retention']) as k where result ? k;
  return result;
end $$;
