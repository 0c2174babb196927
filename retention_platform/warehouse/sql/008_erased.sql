-- Viewers who were erased stay erased: what comes of them again, because the topic is read once more or a player had not
-- sent all, is dropped where it would be stored. Known are they by the SHA-256 of the id as it would be stored, never by
-- the id. Of what was erased the place in the log is kept and nothing else, so that completeness stays checkable offset
-- by offset. Views are made anew, not altered: after alter ... modify query the next restart of the server forgets tokens,
-- and a repeated batch would be stored twice. So ingest must not run meanwhile.

create table if not exists raw.erased_viewers
(
    viewer_hash String comment 'SHA-256 of viewer_id as raw.playback_events would hold it, in lower-case hexadecimal',
    erased_at DateTime64(3, 'UTC') default now64(3, 'UTC')
)
engine = ReplacingMergeTree
order by viewer_hash
comment 'Viewers of whom nothing is stored any more.';

create table if not exists raw.erased_messages
(
    log_id LowCardinality(String),
    topic LowCardinality(String),
    partition Int32,
    offset Int64 codec(Delta, ZSTD(1)),
    erased_at DateTime64(3, 'UTC') default now64(3, 'UTC')
)
engine = ReplacingMergeTree
order by (topic, log_id, partition, offset)
settings non_replicated_deduplication_window = 10000
comment 'Where in the log messages of erased viewers are: read, and not stored.';

-- In each of these the first half is known before a row is looked at: while nobody was erased nothing is computed.
drop view if exists raw.store_events sync;

create materialized view raw.store_events to raw.playback_events as
select
    event_id, event_type, event_time, session_id, viewer_id, video_id, position_ms, played_from_ms,
    played_to_ms, seek_from_ms, duration_ms, playback_rate, device_type, os, browser, country, traffic_source,
    player, is_live, sent_at, log_id, topic, partition, offset, now64(3, 'UTC') as ingested_at
from raw.judged_events
where
    reason = ''
    and ((select count() from raw.erased_viewers) = 0
        or lower(hex(SHA256(viewer_id))) not in (select viewer_hash from raw.erased_viewers));

drop view if exists raw.count_deliveries sync;

create materialized view raw.count_deliveries to raw.deliveries as
select
    video_id,
    toDate(event_time) as day,
    count() as messages,
    countIf(now64(3, 'UTC') > event_time + toIntervalHour(1)) as late_messages
from raw.judged_events
where
    reason = ''
    and ((select count() from raw.erased_viewers) = 0
        or lower(hex(SHA256(viewer_id))) not in (select viewer_hash from raw.erased_viewers))
group by video_id, day;

-- A refused message names its viewer in any way it likes: every string in it is held to be one, and every word.
drop view if exists raw.reject_events sync;

create materialized view raw.reject_events to raw.rejected_events as
select
    log_id, topic, partition, offset, message_time, key, payload,
    splitByString(': ', reason)[1] as field, reason, now64(3, 'UTC') as rejected_at
from raw.judged_events
where
    reason != ''
    and ((select count() from raw.erased_viewers) = 0
        or not hasAny(
            arrayMap(word -> lower(hex(SHA256(word))), arrayConcat(
                [JSONExtractString(payload, 'viewer_id')],
                extractAll(payload, '"([^"\\\\]*)"'),
                extractAll(payload, '[\\w.@+:-]{6,}')
            )),
            (select groupArray(viewer_hash) from raw.erased_viewers)
        ));

create materialized view if not exists raw.leave_out_erased to raw.erased_messages as
select log_id, topic, partition, offset, now64(3, 'UTC') as erased_at
from raw.judged_events
where
    (select count() from raw.erased_viewers) > 0
    and if(
        reason = '',
        lower(hex(SHA256(viewer_id))) in (select viewer_hash from raw.erased_viewers),
        hasAny(
            arrayMap(word -> lower(hex(SHA256(word))), arrayConcat(
                [JSONExtractString(payload, 'viewer_id')],
                extractAll(payload, '"([^"\\\\]*)"'),
                extractAll(payload, '[\\w.@+:-]{6,}')
            )),
            (select groupArray(viewer_hash) from raw.erased_viewers)
        )
    );
