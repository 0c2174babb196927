-- Messages that ingest puts aside because a view breaks on them come through here, so that an erased viewer's stay out of
-- the rejected ones too.

create table if not exists raw.put_aside
(
    log_id LowCardinality(String),
    topic LowCardinality(String),
    partition Int32,
    offset Int64,
    message_time DateTime64(3, 'UTC'),
    key String,
    payload String,
    field LowCardinality(String),
    reason String,
    rejected_at DateTime64(3, 'UTC')
)
engine = Null
comment 'Where ingest inserts messages that could not be stored. Stores nothing itself.';

create materialized view if not exists raw.store_put_aside to raw.rejected_events as
select log_id, topic, partition, offset, message_time, key, payload, field, reason, rejected_at
from raw.put_aside
where
    topic != 'playback_events'
    or (select count() from raw.erased_viewers) = 0
    or not hasAny(
        arrayMap(word -> lower(hex(SHA256(word))), arrayConcat(
            [JSONExtractString(payload, 'viewer_id')],
            extractAll(payload, '"([^"\\\\]*)"'),
            extractAll(payload, '[\\w.@+:-]{6,}')
        )),
        (select groupArray(viewer_hash) from raw.erased_viewers)
    );

create materialized view if not exists raw.leave_out_put_aside to raw.erased_messages as
select log_id, topic, partition, offset, now64(3, 'UTC') as erased_at
from raw.put_aside
where
    topic = 'playback_events'
    and (select count() from raw.erased_viewers) > 0
    and hasAny(
        arrayMap(word -> lower(hex(SHA256(word))), arrayConcat(
            [JSONExtractString(payload, 'viewer_id')],
            extractAll(payload, '"([^"\\\\]*)"'),
            extractAll(payload, '[\\w.@+:-]{6,}')
        )),
        (select groupArray(viewer_hash) from raw.erased_viewers)
    );
