//! What every store must do: one suite over `&dyn Store`, run on each database. Beside it, what is
//! `SQLite`'s own: group commit, withdrawal, the file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a test that cannot go on says so by ending; it measures real time"
)]

mod accept;
mod hello;
mod ingest;
mod kit;
mod model;
mod pages;
mod records;
mod restore;
mod reversions;
mod sqlite;

/// Runs each function of the suite on a fresh `SQLite` file.
macro_rules! on_sqlite {
    ($($module:ident :: { $($test:ident),+ $(,)? })+) => {
        mod on_sqlite {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let fixture = crate::sqlite::Fixture::new().await;
                    crate::$module::$test(&fixture.store).await;
                    crate::sqlite::finish(fixture).await;
                }
            )+)+
        }
    };
}

on_sqlite! {
    accept::{
        commands_are_numbered_within_their_feeder,
        a_known_id_answers_with_its_command,
        one_hundred_parallel_calls_of_one_id_make_one_command,
        one_unsettled_dose_per_robot_under_fifty_parallel_calls,
        a_dose_locks_its_robot_and_no_other,
        hold_resume_and_reset_pass_the_lock,
        a_stale_etag_is_refused,
        two_parallel_updates_make_one_command,
        a_config_in_doubt_blocks_the_next,
        another_epoch_is_refused,
        an_unknown_feeder_is_not_found,
        all_or_none,
        the_outbox_holds_what_has_no_end,
        only_its_own_session_is_closed,
        doubt_ends_what_has_no_end,
        a_person_settles_a_dose_once,
        a_settlements_id_is_none_of_a_command_nor_the_reverse,
    }
    hello::{
        an_unknown_agent_is_refused,
        epochs_grow_and_never_repeat,
        an_implausible_epoch_is_refused,
        the_inventory_makes_version_one,
        a_feeder_of_another_agent_is_refused,
        a_whole_journal_expires_what_it_does_not_hold,
        listed_outcomes_are_taken_as_listed,
        an_open_intent_stays_in_doubt,
        a_journal_that_is_behind_proves_nothing,
        a_slot_that_differs_proves_nothing,
        an_unreadable_plc_settles_nothing,
        a_restored_database_proves_nothing,
        a_journal_settles_an_older_doubt,
        what_was_settled_before_is_named,
        a_config_made_at_the_farm_becomes_a_version,
        a_config_in_doubt_is_not_credited_to_the_farm,
        a_farm_edit_beside_a_config_in_doubt_is_the_farms,
        a_persons_settlement_is_told_again,
        lost_records_become_one_gap,
        a_dead_process_leaves_doubt,
    }
    restore::{
        a_dose_that_only_the_journal_knows_is_taken_in_and_can_be_settled,
        a_config_that_only_the_journal_knows_becomes_its_version,
        what_cannot_be_taken_in_is_alarmed,
        an_agent_without_an_anchor_proves_nothing_by_absence,
    }
    ingest::{
        an_outcome_changes_command_and_config_together,
        a_mixture_is_the_commands_and_not_the_farms,
        a_late_write_that_shows_before_its_outcome_is_the_commands,
        what_an_older_doubt_reads_is_the_newer_commands,
        an_outcome_that_comes_again_changes_nothing,
        only_uncertain_changes_and_only_once,
        a_superseded_session_cannot_report,
        another_body_is_refused,
        another_agents_command_is_refused,
        a_late_outcome_of_an_older_epoch_settles_a_doubt,
        a_farm_edit_becomes_a_version,
        a_config_report_waits_for_the_open_command,
        a_raw_config_is_stored_as_it_is,
        the_end_lifts_the_dose_lock,
        what_a_plc_came_up_with_is_nobodys,
    }
    reversions::{
        a_farm_change_that_undoes_an_applied_one_says_so,
        only_what_undoes_the_newest_applied_change_is_one,
        an_open_command_tells_what_the_farm_undid_of_the_one_before,
        what_a_hello_finds_undone_is_told_unless_the_database_was_put_back,
    }
    records::{
        records_are_stored_exactly_once,
        a_gap_is_not_stepped_over,
        another_content_under_one_key_is_refused,
        a_new_incarnation_begins_again,
        doses_bear_resource_names,
        a_large_batch_is_stored_whole,
    }
    pages::{
        commands_come_newest_first,
        pages_stay_put_while_commands_are_added,
        versions_come_newest_first,
        doses_come_newest_first_by_their_time,
        a_whole_farm_is_read_in_one_piece,
        farms_are_added_once,
    }
    model::{
        random_histories_agree_with_a_model,
    }
}
