insert into {schema}.usage as u (vectorizer, day, requests, texts_asked, texts_sent, tokens_asked, tokens_sent)
values (%(vectorizer)s, {schema}.today(),
        %(requests)s, %(texts_asked)s, %(texts_sent)s, %(tokens_asked)s, %(tokens_sent)s)
on conflict (vectorizer, day) do update
set requests = u.requests + excluded.requests, texts_asked = u.texts_asked + excluded.texts_asked,
    texts_sent = u.texts_sent + excluded.texts_sent, tokens_asked = u.tokens_asked + excluded.tokens_asked,
    tokens_sent = u.tokens_sent + excluded.tokens_sent
