//! The one list of cases. The tests an adapter gets and the suite's own table both come from it.

/// Hands every case to a macro, as `On module name`.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    ($with:ident) => {
        $with!(Thread log l1_an_acknowledged_append_is_seen_by_every_pod);
        $with!(Thread log l1_an_acknowledged_append_outlives_its_pod);
        $with!(Threads log l2_concurrent_appends_share_no_offset_and_lose_none);
        $with!(Thread log l2_offsets_rise_in_commit_order_across_pods_and_keys);
        $with!(Thread log l2_families_are_apart);
        $with!(Thread log l2_records_keep_their_bytes);
        $with!(Thread log l2_the_longest_names_are_held);
        $with!(Thread tail l3_yields_every_retained_record_in_order);
        $with!(Thread tail l3_resumes_after_or_at_any_offset);
        $with!(Thread tail l3_a_tail_from_the_head_starts_with_the_next_record);
        $with!(Thread tail l3_tails_live_what_any_pod_appends);
        $with!(Thread tail l3_a_tail_that_sleeps_is_woken);
        $with!(Thread tail l3_a_key_has_a_tail_of_its_own);
        $with!(Threads tail l3_backlog_and_live_records_join_without_gap_or_repeat);
        $with!(Thread tail l3_instances_with_hostile_names_are_apart);
        $with!(Thread tail l3_a_hole_names_the_keys_that_lost_records_before_they_are_missed);
        $with!(Thread tail l4_a_slow_reader_loses_nothing);
        $with!(Thread tail l4_a_tail_outlives_silence_and_traffic_of_others);
        $with!(Thread outage l4_an_interrupted_tail_says_so);
        $with!(Thread outage l4_resuming_after_an_interruption_misses_nothing);
        $with!(Thread outage l4_every_interruption_is_told_and_survived);
        $with!(Thread outage l4_calls_say_that_the_backend_is_away);
        $with!(Thread batch l5_a_batch_is_in_order_across_keys);
        $with!(Threads batch l5_nothing_comes_between_the_records_of_a_batch);
        $with!(Threads batch l5_a_batch_is_never_seen_in_part);
        $with!(Thread batch l5_an_expected_head_is_the_keys_own);
        $with!(Thread batch l5_the_beginning_expects_no_record);
        $with!(Thread batch l5_a_head_that_is_ahead_of_the_log_is_a_conflict);
        $with!(Thread batch l5_an_expectation_of_another_epoch_is_a_conflict);
        $with!(Thread batch l5_an_expectation_of_another_epoch_uses_up_no_id);
        $with!(Thread batch l5_one_failed_expectation_of_several_appends_nothing);
        $with!(Thread batch l5_a_key_without_an_entry_can_be_expected);
        $with!(Thread batch l5_more_keys_than_entries_can_be_expected);
        $with!(Threads batch l5_of_racing_appends_that_expect_one_head_one_wins);
        $with!(Thread batch l5_the_largest_batch_is_accepted_and_one_more_refused);
        $with!(Thread ids l6_a_repeat_answers_the_first_offsets_and_appends_nothing);
        $with!(Thread ids l6_a_repeated_batch_answers_all_its_offsets);
        $with!(Thread ids l6_an_id_belongs_to_its_key);
        $with!(Thread ids l6_a_repeat_beats_a_failed_expectation);
        $with!(Thread ids l6_an_append_that_failed_leaves_its_id_free);
        $with!(Thread ids l6_ids_survive_the_compaction_of_their_records);
        $with!(Thread ids l6_ids_are_remembered_for_the_window);
        $with!(Threads ids l6_concurrent_repeats_append_once);
        $with!(Thread ids l6_ids_that_look_alike_are_apart);
        $with!(Thread outage l7_an_append_whose_ack_is_lost_is_an_unknown_outcome);
        $with!(Thread outage l7_repeating_an_unknown_append_with_its_id_is_safe);
        $with!(Thread outage l7_an_unknown_append_is_committed_where_its_expectation_held);
        $with!(Thread outage l7_the_offsets_of_a_repeat_are_where_the_records_are);
        $with!(Thread read l8_a_read_keeps_to_its_range_and_limit);
        $with!(Thread read l8_fewer_than_the_limit_means_that_there_is_no_more);
        $with!(Thread read l8_a_log_is_read_whole_page_by_page);
        $with!(Thread read l8_a_read_past_the_end_ends);
        $with!(Thread log l9_lists_the_keys_of_a_family_in_order_by_pages);
        $with!(Thread log l9_lists_no_key_without_a_record);
        $with!(Thread head l10_the_head_of_nothing_is_the_beginning);
        $with!(Thread head l10_the_head_of_a_key_is_its_own);
        $with!(Thread head l10_a_head_is_never_behind_an_acknowledged_append);
        $with!(Thread head l10_everyone_names_the_same_epoch);
        $with!(Thread store s1_a_load_answers_what_was_written);
        $with!(Thread store s1_cells_with_hostile_names_are_apart);
        $with!(Thread outage s2_a_cas_whose_ack_is_lost_is_an_unknown_outcome);
        $with!(Thread outage s2_the_store_says_that_it_is_away);
        $with!(Thread store s2_a_write_is_accepted_only_as_expected);
        $with!(Threads store s2_of_racing_writers_exactly_one_wins);
        $with!(Threads store s2_no_increment_is_lost);
        $with!(Thread store s2_revisions_rise_through_deletes);
        $with!(Thread store s2_the_incarnation_is_one_for_every_pod);
        $with!(Thread outage s3_a_delete_whose_ack_is_lost_is_an_unknown_outcome);
        $with!(Thread store s3_a_delete_takes_place_only_as_expected);
        $with!(Threads store s3_of_a_racing_write_and_delete_one_wins);
        $with!(Thread store s4_a_cell_expires_and_its_revisions_go_on);
        $with!(Thread store s4_a_cell_lives_as_long_as_was_said);
        $with!(Thread store s4_a_rewrite_replaces_the_time_to_live);
        $with!(Thread store s4_a_cell_written_over_an_expired_one_expires_too);
        $with!(Thread outage s5_an_interrupted_watch_says_so_and_the_next_replays_the_present);
        $with!(Thread watch s5_replays_the_present_between_begin_and_end);
        $with!(Thread watch s5_an_absent_cell_has_an_empty_present_and_is_told_when_it_comes);
        $with!(Thread watch s5_tells_every_latest_change_of_any_pod);
        $with!(Thread watch s5_a_watch_that_sleeps_is_woken);
        $with!(Thread watch s5_a_delete_is_told_with_a_revision_of_its_own);
        $with!(Thread watch s5_an_expiry_is_told_though_nobody_touches_the_cell);
        $with!(Thread watch s5_a_prefix_is_of_whole_segments);
        $with!(Thread watch s5_a_watch_of_one_cell_tells_of_no_other);
        $with!(Thread watch s5_a_slow_watch_still_tells_the_latest);
        $with!(Thread watch s5_a_change_during_the_replay_is_not_missed);
        $with!(Threads watch s5_a_watch_and_the_store_agree_under_concurrent_writes);
        $with!(Thread watch s5_ten_thousand_watches_of_one_cell_each_hear_their_own);
        $with!(Thread log s6_a_record_at_the_limit_is_accepted_and_one_over_refused);
        $with!(Thread log s6_one_large_record_refuses_its_whole_batch);
        $with!(Thread store s6_a_cell_at_the_limit_is_accepted_and_one_over_refused);
        $with!(Thread feed s6_a_message_at_the_limit_is_accepted_and_one_over_refused);
        $with!(Thread compactor c1_drops_what_is_below_and_leaves_the_rest_where_it_is);
        $with!(Thread compactor c1_keeps_the_head_whatever_is_asked);
        $with!(Thread compactor c1_touches_no_other_key);
        $with!(Thread compactor c1_a_compacted_key_goes_on);
        $with!(Thread compactor c1_a_resumed_tail_yields_what_is_left);
        $with!(Threads compactor c2_a_missing_record_is_below_a_floor_that_is_known);
        $with!(Thread compactor c2_the_floor_is_the_same_for_every_pod);
        $with!(Thread compactor c3_is_idempotent_and_monotone);
        $with!(Threads compactor c3_of_racing_compactions_the_highest_floor_stays);
        $with!(Thread compactor c3_is_clamped_to_the_head);
        $with!(Thread compactor c4_the_floor_is_the_beginning_until_the_first_compaction);
        $with!(Thread compactor c5_a_family_is_compacted_from_its_first_floor_on);
        $with!(Thread compactor c5_every_pod_is_told_that_a_family_was_compacted);
        $with!(Thread compactor c5_a_compacted_family_says_nothing_of_others);
        $with!(Threads compactor c5_a_missing_record_is_of_a_compacted_family);
        $with!(Thread outage f1_an_interrupted_feed_says_so);
        $with!(Thread feed f1_a_message_reaches_every_subscriber_of_every_pod_once);
        $with!(Thread feed f1_a_subscriber_that_sleeps_is_woken);
        $with!(Thread feed f1_topics_with_hostile_names_are_apart);
        $with!(Thread feed f1_messages_keep_their_bytes);
        $with!(Thread feed f2_nothing_is_replayed);
        $with!(Thread feed f3_a_slow_subscriber_blocks_nobody);
        $with!(Thread backplane b1_after_close_every_call_is_refused);
        $with!(Thread backplane b1_close_ends_every_stream);
        $with!(Thread backplane b1_close_wakes_a_stream_that_sleeps);
        $with!(Thread backplane b1_close_leaves_other_pods_alone);
        $with!(Thread backplane b2_dropped_calls_harm_nothing);
        $with!(Thread backplane b2_a_dropped_append_happens_wholly_or_not_at_all);
        $with!(Thread backplane b2_a_dropped_cas_happens_or_does_not);
    };
}

/// The cases by name. A case that is not in the list is dead code, and the compiler says so.
#[doc(hidden)]
pub mod cases {
    use crate::conformance::{
        Case, On, backplane, batch, compactor, feed, head, ids, log, outage, read, store, tail, watch,
    };

    macro_rules! entry {
        ($on:ident $module:ident $name:ident) => {
            #[allow(
                non_upper_case_globals,
                missing_docs,
                reason = "a case is named after the test it becomes"
            )]
            pub const $name: Case =
                Case { name: stringify!($name), on: On::$on, run: |trial| Box::pin($module::$name(trial)) };
        };
    }

    crate::__conformance_cases!(entry);
}
