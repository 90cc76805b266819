"""The table of mutants."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """A guard that is taken away.

    Attributes:
        name: What is lost with it.
        file: Where it stands.
        old: Its code, which is found there once.
        new: What stands there instead.
        test: The test that has to fail, or never to end.
        seconds: How long it is waited for.
    """

    name: str
    file: str
    old: str
    new: str
    test: str
    seconds: int = 300


CRASH = "tests/crash"
UNIT = "tests/unit"
TROUBLES = "tests/troubles"

MUTANTS = [
    # --- The journal
    Mutant(
        "a journal's checksums",
        "cox/storage/journal/reading.py",
        "            if _crc32(payload, salt) == checksum:\n                record",
        "            if True:\n                record",
        f"{CRASH}/test_damage.py::test_a_flipped_bit_anywhere_in_a_journal_never_gives_another_row",
    ),
    Mutant(
        "the salt of its checksums",
        "cox/storage/journal/writing.py",
        "        salt = secrets.randbits(32)\n",
        "        salt = 0\n",
        f"{UNIT}/test_journal.py::test_every_journal_has_its_own_salt",
    ),
    Mutant(
        "the sync of a row under sync='row'",
        "cox/storage/journal/writing.py",
        "            if self.synced:\n                fs.sync_data(self.fd)\n        except",
        "        except",
        f"{UNIT}/test_journal.py::test_sync_row_syncs_every_record_and_the_name",
    ),
    Mutant(
        "taking back a row that was not acknowledged",
        "cox/storage/journal/writing.py",
        "        fs.truncate(self.fd, self.size)\n",
        "",
        f"{UNIT}/test_journal.py::test_a_write_that_fails_leaves_nothing",
    ),
    Mutant(
        "giving the lock back after Ctrl-C",
        "cox/storage/journal/compiled.py",
        "        if is_owned():\n            log.take_back()\n            release()\n",
        "",
        f"{CRASH}/test_interrupts.py::test_an_interrupt_behind_any_call_of_a_row_costs_that_row_at_most",
    ),
    Mutant(
        "looking, behind a write, whether a signal handler logged",
        "cox/storage/journal/compiled.py",
        "        if written != size or log.next_seq != seq or log.fd < 0:\n",
        "        if written != size:\n",
        f"{CRASH}/test_interrupts.py::test_a_handler_that_logs_in_the_middle_of_anything_loses_nothing",
    ),
    Mutant(
        "leaving out the journal of another run",
        "cox/storage/lineage.py",
        "        if log.header is not None and log.header.run != run_id:\n",
        "        if False:\n",
        "tests/troubles/test_lives.py::test_a_longer_journal_of_another_run_does_not_win",
    ),
    Mutant(
        "a journal follows what is in the store file",
        "cox/storage/lineage.py",
        "            if salt == self._head and end >= self._seq:\n",
        "            if True:\n",
        "tests/troubles/test_lives.py::test_copies_that_both_went_on_are_never_mixed",
    ),
    Mutant(
        "of two journals that go on from one place, one counts",
        "cox/storage/lineage.py",
        "        stops = [*(node.start for node in path[1:]), best.log.end_seq]\n",
        "        stops = [node.log.end_seq for node in path]\n",
        "tests/troubles/test_lives.py"
        "::test_a_writer_that_goes_on_after_another_took_over_is_not_applied_from_there_on",
    ),
    Mutant(
        "of two journals that exclude each other, a writer goes on with its own",
        "cox/storage/lineage.py",
        "key=lambda node: (node.log.salt in own, node.log.end_seq",
        "key=lambda node: (node.log.end_seq",
        "tests/troubles/test_lives.py::test_a_writer_beside_whose_journal_a_longer_one_is_put_keeps_its_rows",
    ),
    Mutant(
        "an id in run.json is believed if rows bear it out",
        "cox/storage/lineage.py",
        "        if borne_out or (",
        "        if True or (",
        "tests/troubles/test_lives.py::test_a_run_file_of_another_run_costs_nothing",
    ),
    Mutant(
        "mode='w' continues nothing that was before",
        "cox/storage/snapshot.py",
        '            state["journals"] = [[secrets.randbits(32), state["seq"]]]\n',
        "",
        "tests/troubles/test_lives.py::test_what_was_before_mode_w_does_not_come_back",
    ),
    Mutant(
        "the types of what store.h5 says of itself",
        "cox/storage/hdf5/attribute.py",
        "        run = _decode(text)\n",
        "        run = msgspec.json.decode(text)\n",
        "tests/troubles/test_lying_metadata.py::test_the_error_names_the_run_and_what_is_wrong",
    ),
    Mutant(
        "a copied group is not the table",
        "cox/storage/hdf5/reading.py",
        "        elif of_upstream and name not in groups:\n",
        "        else:\n",
        "tests/troubles/test_copied_groups.py::test_a_copied_group_is_kept_and_is_not_the_table",
    ),
    Mutant(
        "the second copy of a table's declaration",
        "cox/storage/journal/writing.py",
        "[declared, declared, [ROW",
        "[declared, [ROW",
        f"{CRASH}/test_damage.py::test_a_hole_in_a_journal_costs_the_rows_that_it_touches",
    ),
    Mutant(
        "the second copy of an added column",
        "cox/storage/journal/writing.py",
        "        return self._put_all([record, record], self.next_seq, table, table.nrows)",
        "        return self._put_all([record], self.next_seq, table, table.nrows)",
        f"{TROUBLES}/test_wide_tables.py::test_the_record_of_a_column_survives_damage_to_one_of_its_copies",
    ),
    Mutant(
        "looking, behind the record of a column, whether a signal handler logged",
        "cox/storage/writer.py",
        "        if not size or table.schema is not before or table.generation != -1:\n",
        "        if not size:\n",
        f"{TROUBLES}/test_wide_tables.py::"
        "test_a_column_added_by_a_signal_handler_in_the_middle_of_another_is_not_mixed_up",
    ),
    Mutant(
        "blocks for names that HDF5's description of a table does not hold",
        "cox/storage/hdf5/writing.py",
        " and described <= _MOST_FIELD_BYTES:",
        ":",
        f"{TROUBLES}/test_wide_tables.py::test_long_names_are_folded_by_blocks",
    ),
    Mutant(
        "rows of another program are the run's own before others follow them",
        "cox/storage/fold.py",
        "    adopted = adopt and ownership.adopt_rows(now.content)\n",
        "    adopted = False\n",
        f"{TROUBLES}/test_types.py::test_nrows_counts_rows_that_another_program_appended",
    ),
    Mutant(
        "the second copy of a rewind",
        "cox/storage/journal/writing.py",
        "self._put_all([record, record], self.next_seq, table, nrows)",
        "self._put_all([record], self.next_seq, table, nrows)",
        f"{CRASH}/test_damage.py::test_a_flipped_bit_anywhere_in_a_journal_never_gives_another_row",
    ),
    # --- The fold and the snapshot
    Mutant(
        "reading the journals before the store file",
        "cox/storage/snapshot.py",
        "    journals = journal.read_journals(directory, _read_by_columns, names=names)\n",
        "    if not empty.is_empty(run.store_file):\n"
        "        content = hdf5.read(run.store_file, tables=tables, rows=rows)\n"
        "        journals = journal.read_journals(run.journal_dir, _read_by_columns)\n"
        "        return replay(content, journals, tables=tables, rows=rows)\n"
        "    journals = journal.read_journals(directory, _read_by_columns, names=names)\n",
        f"{CRASH}/test_concurrency.py::test_c20_readers_beside_a_writer_see_every_acknowledged_row_once",
    ),
    Mutant(
        "the store file written beside and renamed",
        "cox/storage/fs.py",
        "    beside = temporary_beside(path)\n    try:\n        write(beside)",
        "    beside = path\n    try:\n        write(beside)",
        f"{UNIT}/test_fs.py::test_a_failure_to_write_leaves_the_old_file_and_nothing_else",
    ),
    Mutant(
        "the sync of the store file before its rename",
        "cox/storage/fs.py",
        "        if durable:\n            sync_file(beside)\n        rename(beside, path)",
        "        rename(beside, path)",
        f"{UNIT}/test_fs.py::test_the_order_of_a_durable_replacement",
    ),
    Mutant(
        "the lock around a fold",
        "cox/storage/fold.py",
        "    with claims.exclusive(run.fold_lock, patience=patience):\n        return",
        "    if True:\n        return",
        f"{CRASH}/test_concurrency.py::test_two_ranks_that_fold_at_once_lose_nothing_without_locks",
    ),
    Mutant(
        "leaving a journal to its living writer",
        "cox/storage/fold.py",
        "with contextlib.suppress(RunInUseError), claims.borrowed(run.claim_file(log.writer)):\n"
        "                    away(",
        "if True:\n                    away(",
        f"{CRASH}/test_concurrency.py::test_a_fold_leaves_the_journal_of_a_rank_that_lives",
    ),
    Mutant(
        "leaving a journal that a signal handler has begun in mid-fold",
        "cox/storage/fold.py",
        "            elif log.path != own.path:",
        "            else:",
        f"{CRASH}/test_interrupts.py::test_a_kill_behind_a_fold_in_which_a_handler_logged_costs_nothing",
    ),
    Mutant(
        "leaving a journal in which there is more than was read",
        "cox/storage/fold.py",
        "    if log.path.lstat().st_size == log.size:\n",
        "    if True:\n",
        f"{CRASH}/test_concurrency.py::"
        "test_a_row_that_comes_between_the_reading_and_the_removal_of_a_journal_stays",
    ),
    Mutant(
        "keeping a copy of a damaged journal",
        "cox/storage/fold.py",
        "        _keep_damaged(run, now.journals)\n",
        "        pass\n",
        f"{CRASH}/test_damage.py::test_a_damaged_run_goes_on_and_keeps_what_could_not_be_read",
    ),
    Mutant(
        "the shape of an attribute, which HDF5 believes",
        "cox/storage/hdf5/checks.py",
        "    if extent != h5py.h5s.SCALAR or attribute.get_storage_size() != size:\n",
        "    if False:\n",
        f"{TROUBLES}/test_hostile_hdf5.py::test_an_attribute_that_is_an_array_ends_no_process",
    ),
    Mutant(
        "the length of an unpacked chunk",
        "cox/storage/hdf5/packing.py",
        "    if len(stored) != size:\n        raise",
        "    stored = stored.ljust(size, b'\\0')\n    if len(stored) != size:\n        raise",
        f"{TROUBLES}/test_hostile_hdf5.py::test_a_chunk_that_is_too_short_is_damage",
    ),
    Mutant(
        "a name of a table leads nowhere",
        "cox/storage/layout.py",
        '    return not {"", ".", "..", "_cox"} & set(name.split("/"))\n',
        "    return True\n",
        f"{TROUBLES}/test_names_of_strangers.py",
    ),
    Mutant(
        "the checksums of store.h5",
        "cox/storage/hdf5/packing.py",
        # deflate has one of its own, so both go
        "    how.set_deflate(_ZLIB_LEVEL)\n    how.set_fletcher32()\n",
        "    global pack\n"
        "    pack = lambda rows: np.ascontiguousarray(\n"
        "        rows.view(np.uint8).reshape(len(rows), rows.dtype.itemsize).T\n"
        "    ).tobytes()\n",
        f"{CRASH}/test_damage.py::test_a_flipped_bit_in_store_h5_is_an_error_or_changes_nothing",
    ),
    Mutant(
        "a lost row does not count",
        "cox/storage/replay.py",
        '        state["rows"].update({name: settled.get(name, 0) for name in state["rows"]})\n',
        "        counted = dict(state['rows'])\n",
        f"{UNIT}/test_journal.py::test_rows_that_were_lost_do_not_count",
    ),
    # --- Files of strangers
    Mutant(
        "following no link to a file of a run",
        "cox/storage/fs.py",
        "_OWN_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK |",
        "_OWN_FLAGS = os.O_NONBLOCK |",
        f"{TROUBLES}/test_links_and_pipes.py::test_a_file_that_leads_out_of_the_run_is_not_written_through",
    ),
    Mutant(
        "regular files only",
        "cox/storage/fs.py",
        "    if not stat.S_ISREG(about.st_mode):\n",
        "    if False:\n",
        f"{TROUBLES}/test_links_and_pipes.py::test_damage_names_the_pipe",
    ),
    Mutant(
        "writing into no linked directory of a run",
        "cox/storage/hold.py",
        "            fs.refuse_links(*run.directories, run.events_dir(rank))\n",
        "",
        f"{TROUBLES}/test_links_and_pipes.py::test_a_directory_that_leads_out_of_the_run_is_refused_with_the_remedy",
    ),
    Mutant(
        "a claim with a second name is replaced, and not written to",
        "cox/storage/claims.py",
        "        if os.fstat(self._fd).st_nlink > 1:\n",
        "        if False:\n",
        f"{TROUBLES}/test_links_and_pipes.py::test_a_second_name_of_a_file_of_the_users_is_not_written_to",
    ),
    Mutant(
        "reading no journal through a linked directory",
        "cox/storage/journal/reading.py",
        "    fs.refuse_links(os.path.dirname(directory), directory)  # noqa: PTH120 - nor one for those\n",
        "",
        f"{TROUBLES}/test_links_and_pipes.py::test_journals_are_not_read_through_links",
    ),
    Mutant(
        "mode='w' looks for curves behind no link",
        "cox/storage/fold.py",
        "    if run.tensorboard_dir.is_symlink():  # to a place that others may have made\n        return\n",
        "",
        f"{TROUBLES}/test_links_and_pipes.py::test_mode_w_removes_nothing_behind_a_link",
    ),
    Mutant(
        "mode='w' removes no curves of a rank behind a link",
        "cox/storage/fold.py",
        "        if not place.is_symlink() and not any(",
        "        if not any(",
        f"{TROUBLES}/test_links_and_pipes.py::test_mode_w_removes_nothing_behind_a_link",
    ),
    Mutant(
        "removing no embedding behind a link",
        "cox/storage/curvefiles.py",
        "        if not directory.is_symlink() and not directory.parent.is_symlink():\n",
        "        if True:\n",
        f"{TROUBLES}/test_links_and_pipes.py::test_no_embedding_is_removed_behind_a_link",
    ),
    Mutant(
        "a cache that others may write to is not believed",
        "cox/collection/cache/places.py",
        " and not about.st_mode & _WRITABLE_BY_OTHERS\n",
        "\n",
        f"{TROUBLES}/test_cache_of_others.py::test_a_cache_that_others_may_write_to_is_not_believed",
    ),
    Mutant(
        "a cache of another user is not believed",
        "cox/collection/cache/places.py",
        "    return about.st_uid == os.geteuid()\n",
        "    return True\n",
        f"{TROUBLES}/test_cache_of_others.py::test_a_cache_of_another_user_is_not_believed",
    ),
    Mutant(
        "each directory is looked into once, whatever links there are",
        "cox/storage/scan.py",
        "            seen.add(place)\n",
        "",
        # not the one where links lead back: it would never end
        f"{TROUBLES}/test_links_and_pipes.py::test_a_folder_keeps_its_own_name_beside_a_link_to_it",
    ),
    # --- Several processes
    Mutant(
        "the exclusive lock of a claim",
        "cox/storage/claims.py",
        "        locked = try_lock(fd)\n        if locked is not False or",
        "        locked = try_lock(fd, fcntl.LOCK_SH)\n        if locked is not False or",
        f"{UNIT}/test_claims.py::test_a_claim_says_who_holds_it",
    ),
    Mutant(
        "looking at a claim takes a shared lock only",
        "cox/storage/claims.py",
        "        locked, holder = try_lock(fd, fcntl.LOCK_SH), _holder(fd)\n",
        "        locked, holder = try_lock(fd), _holder(fd)\n",
        f"{UNIT}/test_claims.py::test_a_claim_that_is_only_looked_at_is_not_taken_for_held",
    ),
    Mutant(
        "without locks, one heir of a dead claim",
        "cox/storage/claims.py",
        "            if not fs.create_once(at, own, durable=False):\n",
        "            if fs.create_once(at, own, durable=False) is None:\n",
        f"{UNIT}/test_claims.py::test_without_locks_a_dead_claim_goes_to_one_of_two_who_find_it",
    ),
    Mutant(
        "the lock with hosts that our locks do not reach",
        "cox/storage/claims.py",
        "            if locked is not False and not _take_by_name(mark, locked=locked is True):\n",
        "            if locked or (locked is None and not _take_by_name(mark)):\n",
        f"{UNIT}/test_claims.py::test_exclusive_believes_another_host_whose_locks_do_not_reach_here",
    ),
    Mutant(
        "showing a claim to other hosts",
        "cox/storage/claims.py",
        "        fs.show_to_other_hosts(self._fd)\n",
        "",
        f"{UNIT}/test_claims.py::test_a_claim_is_shown_to_other_hosts_at_once",
    ),
    Mutant(
        "reading anew what was replaced meanwhile",
        "cox/storage/snapshot.py",
        "            if turn and (turn ==",
        "            if not turn or (turn ==",
        f"{UNIT}/test_journal.py::test_a_store_file_that_is_replaced_while_it_is_read_is_read_anew",
    ),
    Mutant(
        "the start time in a claim, which tells a process from its successor",
        "cox/storage/claims.py",
        'return started is not None and started == holder.get("started")',
        "return started is not None",
        f"{CRASH}/test_concurrency.py::test_a_claim_of_an_earlier_process_with_our_own_number_is_dead",
    ),
    Mutant(
        "sweeping up under the lock of the fold",
        "cox/storage/leftovers.py",
        "        with claims.exclusive(run.fold_lock, patience=0):\n            unfinished",
        "        if True:\n            unfinished",
        f"{CRASH}/test_concurrency.py::test_a_rank_that_opens_while_another_closes_leaves_its_fold_alone",
    ),
    Mutant(
        "a rewind goes by the column that counts the rows",
        "cox/storage/writer.py",
        "            column = counting or columns[0]\n",
        "            column = columns[0]\n",
        f"{TROUBLES}/test_steps.py::test_a_rewind",
    ),
    Mutant(
        "a rewind spares the rows of ranks that ended since the attempt began",
        "cox/storage/writer.py",
        "        attempt = sessions.read(self.run).last_attempt()\n",
        "        attempt: list[sessions.Session] = []\n",
        f"{TROUBLES}/test_ranks.py::test_fewer_ranks_drop_the_rows_of_those_that_are_gone",
    ),
    Mutant(
        "a rewind spares the rows of ranks that crashed since the attempt began",
        "cox/storage/writer.py",
        'spared = [self.name, *(one.writer or "" for one in attempt)]',
        'spared = [self.name, *(one.writer or "" for one in attempt if one.how != sessions.CRASHED)]',
        f"{TROUBLES}/test_ranks.py::test_a_late_rank_leaves_the_rows_of_one_that_crashed_in_the_same_attempt",
    ),
    Mutant(
        "a sole writer's own `rank`, before ranks wrote",
        "cox/storage/replay.py",
        "        if not ranked:  # so all that was there is the sole writer's\n",
        "        if False:\n",
        f"{TROUBLES}/test_ranks.py::"
        "test_rows_that_a_sole_writer_stored_with_a_rank_are_not_taken_for_a_ranks",
    ),
    Mutant(
        "a sole writer's own `rank`, beside ranks",
        "cox/storage/replay.py",
        "whole.parts.append(without_rank(part) if ranked else part)",
        "whole.parts.append(part)",
        f"{TROUBLES}/test_ranks.py::test_a_sole_writer_beside_ranks_is_told_apart_before_and_after_a_fold",
    ),
    Mutant(
        "a table that no rank wrote has no ranks",
        "cox/storage/ownership.py",
        'state["rows"].get(table, 0) > 0 for',
        "True for",
        f"{TROUBLES}/test_ranks.py::test_a_column_rank_of_a_table_that_no_rank_wrote_is_the_users_own",
    ),
    Mutant(
        "a rewind spares the rows of ranks that are at it",
        "cox/storage/fold.py",
        "if name not in live and name not in spared]",
        "if name not in spared]",
        f"{TROUBLES}/test_ranks.py::"
        "test_a_rewind_leaves_the_rows_of_a_rank_that_has_opened_the_run_and_not_written_yet",
    ),
    Mutant(
        "who only looks leaves no session",
        "cox/storage/hold.py",
        "        return joins or (is_new and not history.count)\n",
        "        return True\n",
        f"{TROUBLES}/test_sessions.py::test_who_opens_a_run_and_only_reads_changes_nothing_of_what_it_says",
    ),
    Mutant(
        "looking again whether all sessions were told",
        "cox/storage/sessions.py",
        "        if _read_logs(run) == logs:\n            return\n",
        "        return\n",
        f"{TROUBLES}/test_sessions.py::test_who_tells_last_has_seen_all_sessions",
    ),
    Mutant(
        "a crash is written down before the signs of it change",
        "cox/storage/hold.py",
        "                sessions.settle(run, self.name, signs)\n",
        "",
        f"{TROUBLES}/test_sessions.py::test_who_opens_a_run_and_only_reads_changes_nothing_of_what_it_says",
    ),
    Mutant(
        "metadata that was logged before is not added",
        "cox/store/table.py",
        "        if state.logged_before and self._was_logged(row, columns):\n",
        "        if False:\n",
        f"{TROUBLES}/test_metadata_again.py::test_the_same_metadata_logged_again_changes_nothing",
    ),
    Mutant(
        "a typo at a prompt ends nothing",
        "cox/store/ending.py",
        "    if error is None or is_exit(error) or not _is_of_program(error):\n",
        "    if error is None or is_exit(error):\n",
        f"{TROUBLES}/test_endings.py::test_a_typo_at_the_prompt_is_not_the_end_of_the_run",
    ),
    Mutant(
        "mode='w' spares the rows of ranks that are at it",
        "cox/storage/fold.py",
        "                live.add(path.stem)\n",
        "                pass\n",
        f"{CRASH}/test_concurrency.py::test_mode_w_beside_another_rank_drops_none_of_its_rows",
    ),
    Mutant(
        "looking whether the run is still there",
        "cox/storage/hold.py",
        "        if self._gone is not None or self._in_place():\n            return\n        self.journal",
        "        return\n        self.journal",
        "tests/troubles/test_gone.py::test_a_removed_run_is_noticed_within_a_second_and_stays_removed",
    ),
    Mutant(
        "looking whether another program has written into the journal",
        "cox/storage/journal/writing.py",
        "offset - len(last)) != last):",
        "offset - len(last)) == b''):",
        "tests/troubles/test_gone.py::test_no_row_goes_into_a_journal_that_another_program_has_written_into",
    ),
    Mutant(
        "looking before a fold",
        "cox/storage/writer.py",
        "                self.check_place()\n            except CoxError:\n                self.journal",
        "                pass\n            except CoxError:\n                self.journal",
        "tests/troubles/test_gone.py::test_what_is_removed_of_a_run_is_written_anew",
    ),
    Mutant(
        "waiting for a removal that goes on",
        "cox/storage/hold.py",
        "            place.wait_until_settled(self.run.root)\n",
        "            pass\n",
        "tests/troubles/test_gone.py::test_a_removal_that_takes_its_time_is_not_disturbed",
    ),
    Mutant(
        "comparing the run at the path before its writer is shared",
        "cox/storage/open_writers.py",
        "        if (writer is first or writer.is_displaced) and writer.is_at(root):\n",
        "        if writer is first or (writer.is_displaced and writer.is_at(root)):\n",
        "tests/troubles/test_gone.py::test_a_new_store_in_the_same_process_is_a_new_run",
    ),
    Mutant(
        "saying which journal is the newest",
        "cox/storage/journal/writing.py",
        "            newest.write(self._run, newest.Newest(self.writer, salt, seq))\n",
        "",
        "tests/troubles/test_copies.py::test_a_copy_by_another_program_has_every_row_or_says_that_it_has_not",
    ),
    Mutant(
        "leaving what was said of the journal before",
        "cox/storage/newest.py",
        "        if other != newest and other.seq != before:\n",
        "        if other != newest:\n",
        "tests/troubles/test_copies.py::test_a_listing_that_misses_the_newest_name_has_the_one_before",
    ),
    Mutant(
        "taking that back for an empty journal",
        "cox/storage/fold.py",
        "            newest.forget(run, log.path.name)\n",
        "            pass\n",
        "tests/troubles/test_copies.py::test_a_journal_without_a_record_is_not_missed",
    ),
    Mutant(
        "copying the journals of a living run",
        "cox/integrity/copying.py",
        "        logs, marks = self._open_journals(names, opened), newest.among(names)\n",
        "        logs, marks = dict[str, BinaryIO](), newest.among(names)\n",
        "tests/troubles/test_copies.py::test_a_copy_of_a_living_run_has_every_row_from_before",
    ),
    Mutant(
        "comparing the ids of a run and its copy",
        "cox/integrity/copying.py",
        "        if known != there or (known is None and before != about):\n",
        "        if known is None and before != about:\n",
        "tests/troubles/test_copies.py::test_another_run_of_the_name_is_left_alone",
    ),
    Mutant(
        "closing what a program left open",
        "cox/store/store.py",
        "        lifecycle.register(self)\n",
        "",
        "tests/troubles/test_the_end_of_a_program.py",
    ),
    Mutant(
        "HDF5's converters at the end of the program",
        "cox/storage/hdf5/library.py",
        "if threading.main_thread().is_alive():\n",
        "if True:\n",
        "tests/troubles/test_the_end_of_a_program.py",
    ),
    Mutant(
        "no late row where another process has written in its writer's place",
        "cox/storage/writer.py",
        '        if now.content.writers.get(self.name, {"seq": 0})["seq"] != self.journal.next_seq:\n',
        "        if False:\n",
        "tests/troubles/test_the_end_of_a_program.py::"
        "test_a_late_row_is_refused_once_another_process_has_written_in_its_place",
    ),
    Mutant(
        "a late row counts from what others have left of its writer's",
        "cox/storage/writer.py",
        "        self._go_on_from(now)\n        self._learn_ranks(now)\n",
        "        self._learn_ranks(now)\n",
        "tests/troubles/test_the_end_of_a_program.py::"
        "test_a_late_row_of_a_rank_is_stored_though_another_one_has_begun_anew_since",
    ),
    Mutant(
        "opening a run again for a row at the end",
        "cox/storage/hold.py",
        "            if not self.reopens:\n                raise self._gone\n",
        "            if True:\n                raise self._gone\n",
        "tests/troubles/test_the_end_of_a_program.py",
    ),
    Mutant(
        "a forked child lets go of its parent's runs",
        "cox/store/lifecycle.py",
        "    open_writers.forget_all()\n",
        "",
        f"{CRASH}/test_concurrency.py::test_a_forked_child_leaves_its_parents_run_alone",
    ),
    Mutant(
        "cutting off half an event",
        "cox/tensorboard/eventfile.py",
        "            fs.truncate(self._fd, self._size)\n",
        "            pass\n",
        f"{UNIT}/test_eventfile.py::test_a_write_that_fails_half_way_tears_nothing",
    ),
    Mutant(
        "the lock of an event file between threads",
        "cox/tensorboard/eventfile.py",
        "            with self._lock:\n                if self._fd < 0:",
        "            if self._lock:\n                if self._fd < 0:",
        f"{UNIT}/test_eventfile.py::test_threads_that_log_at_once_lose_and_tear_nothing",
    ),
    Mutant(
        "forgetting the curves of add_scalars in a rewind",
        "cox/tensorboard/curves.py",
        "[self._place, *curvefiles.subdirectories(self._place)]",
        "[self._place]",
        f"{TROUBLES}/test_tensorboard_writer.py::test_curves_of_one_chart_are_rewound",
    ),
    Mutant(
        "saying of which row a point with a step is",
        "cox/tensorboard/curves.py",
        "[*entries, *summaries.row_mark(table, row)]",
        "entries",
        f"{TROUBLES}/test_tensorboard_writer.py::test_a_rewind_by_rows_forgets_from_the_step_of_the_row",
    ),
    Mutant(
        "refusing a kept writer of a closed store",
        "cox/tensorboard/eventfile.py",
        "            raise ClosedError(self._end)\n",
        "            pass\n",
        f"{TROUBLES}/test_tensorboard_writer.py::test_a_kept_writer_of_a_closed_store_says_so",
    ),
    Mutant(
        "ending the server with cox-tensorboard",
        "cox/tensorboard/view/child.py",
        "    os.kill(os.getpid(), signal.SIGTERM)\n",
        "    return\n",
        f"{TROUBLES}/test_tensorboard_server.py::test_the_server_ends_when_cox_tensorboard_is_killed",
    ),
    Mutant(
        "cutting the names of runs only so far that each is still that of one run",
        "cox/display/fitting.py",
        "        if any(alike[name[:head], name[-tail:]] > 1 for name in texts if width(name) > columns):\n",
        "        if False:\n",
        "tests/cli/test_terminal.py::test_a_name_is_cut_only_so_far_that_it_is_still_that_of_one_run",
    ),
    Mutant(
        "cutting no number",
        "cox/display/fitting.py",
        "        limit = max(limit, self._least)\n",
        "",
        "tests/cli/test_terminal.py::test_numbers_are_never_cut",
    ),
    Mutant(
        "dropping what a full output does not take",
        "cox/cli/__init__.py",
        "            terminal.silence()\n            raise click.ClickException(",
        "            raise click.ClickException(",
        "tests/cli/test_terminal.py::test_outputs_that_are_closed_or_full_end_quietly",
    ),
    Mutant(
        "plotting by a column only where it counts the rows",
        "cox/steps.py",
        "    return all((np.diff(values[rows][known[rows]]) > 0).all() for rows in parts)\n",
        "    return True\n",
        "tests/unit/test_plotting.py::test_without_x_the_column_that_counts_or_the_row",
    ),
    Mutant(
        "sending again what stands behind a gap in a curve",
        "cox/integrity/redraw.py",
        "in points.items() if step >= min(starts)}",
        "in points.items() if step in missing}",
        "tests/cli/test_redraw.py::test_a_gap_is_not_filled_from_behind",
    ),
    Mutant(
        "leaving a curve alone that has other values than the rows",
        "cox/integrity/redraw.py",
        "return np.array_equal(drawn, values, equal_nan=True)",
        "return True",
        "tests/cli/test_redraw.py::test_a_curve_with_other_values_than_the_rows_is_left_alone",
    ),
    # --- What a collection keeps
    Mutant(
        "the time of the last change of status, which a copy cannot set back",
        "cox/storage/scan.py",
        "    return inode, found.st_size, found.st_mtime_ns, found.st_ctime_ns\n",
        "    return inode, found.st_size, found.st_mtime_ns, 0\n",
        f"{UNIT}/collection/test_cache.py::test_a_run_replaced_by_one_of_the_same_size_and_time",
    ),
    Mutant(
        "keeping nothing that changed a moment ago",
        "cox/collection/cache/saving.py",
        "            if state.newest <= settled and",
        "            if True and",
        f"{UNIT}/collection/test_cache.py::test_what_changed_a_moment_ago_is_not_kept",
    ),
    Mutant(
        "the checksums of what is kept",
        "cox/collection/cache/segments.py",
        " or crc32c.crc32c(data) != blob.checksum:",
        ":",
        f"{CRASH}/test_cache_faults.py",
    ),
    Mutant(
        "kept rows of a run are all there are",
        "cox/collection/cache/__init__.py",
        "        if not places.is_whole[at].all():",
        "        if False:",
        f"{UNIT}/collection/test_cache.py::test_runs_of_a_lost_segment_are_read_again_each_for_itself",
    ),
    Mutant(
        "taking a later look into a run back to the first one",
        "cox/collection/reading.py",
        "            look.restore(now)\n",
        "            pass\n",
        f"{UNIT}/collection/test_moment.py::test_a_call_sees_one_moment",
    ),
    Mutant(
        "asking how a run is before its rows are read",
        "cox/collection/lines.py",
        "    statuses = now.statuses(now.named(query))\n",
        "    statuses = now.statuses(now.parameters(now.named(query)))\n",
        f"{UNIT}/collection/test_moment.py::test_a_run_that_is_said_to_have_ended_has_all_its_rows",
    ),
    Mutant(
        "a run of a dataset is known by its place, not by its name",
        "cox/collection/exported.py",
        "        return self._add(run, fresh)",
        "        return next(iter(self._manifest.runs), None) or self._add(run, fresh)",
        f"{TROUBLES}/test_parquet_copies.py::test_runs_of_two_folders_with_one_name_stay_both",
    ),
    Mutant(
        "cells that were converted are kept as they were",
        "cox/exports/parquet.py",
        "        kept = [column for column in block.schema if not _is_as_it_was(column, rows, types)]",
        "        kept: list[Column] = []",
        f"{TROUBLES}/test_parquet_copies.py::test_any_runs_in_any_steps_are_as_if_exported_at_once",
    ),
    Mutant(
        "objects are compared by what is stored",
        "cox/analysis/parameters.py",
        "    if isinstance(value, (Stored, Unreadable)):",
        "    if False:",
        f"{TROUBLES}/test_wrong_numbers.py::test_objects_are_not_compared_by_how_they_print",
    ),
    Mutant(
        "the rows of ranks in an order of their own",
        "cox/collection/ranks.py",
        "        if not is_ranked.any():\n            yield block",
        "        if True:\n            yield block",
        f"{TROUBLES}/test_wrong_numbers.py::test_the_last_row_of_ranks_does_not_depend_on_who_closed_last",
    ),
    # --- Strangers
    Mutant(
        "the allow-list of plain data",
        "cox/objects/codec.py",
        "            if not trust.covers(copy, place):\n                raise _untrusted(refusal, _names_in",
        "            if False:\n                raise _untrusted(refusal, _names_in",
        f"{UNIT}/test_objects.py::test_the_refusal_names_the_cell_the_class_and_the_remedies",
    ),
    Mutant(
        "loading the bytes that were checked, of a large file",
        "cox/objects/codec.py",
        "    if isinstance(file, io.BytesIO):\n        yield file\n",
        "    if True:\n        yield file\n",
        f"{TROUBLES}/test_replayed_objects.py::test_bytes_that_change_after_their_check_are_not_loaded",
    ),
    Mutant(
        "signing into a file that nobody else may write",
        "cox/storage/fs.py",
        "    mode = 0o666 if others_write else 0o644\n",
        "    mode = 0o666\n",
        f"{TROUBLES}/test_replayed_objects.py::test_nobody_else_may_write_into_a_file_that_is_to_be_signed",
    ),
    Mutant(
        "the run, table and column that a signature is bound to",
        "cox/objects/signing.py",
        "[*origin, digest.hex()]",
        "[digest.hex()]",
        f"{TROUBLES}/test_replayed_objects.py::test_a_signed_object_counts_in_its_run_table_and_column_only",
    ),
    Mutant(
        "old signatures count in old runs only",
        "cox/objects/trust.py",
        "            if vouched.old_signatures and signing.is",
        "            if signing.is",
        f"{TROUBLES}/test_replayed_objects.py::test_an_old_signature_counts_for_nothing_in_a_new_run",
    ),
    Mutant(
        "the signature of the list of cox trust is compared",
        "cox/objects/trust.py",
        "    return Vouched(frozenset(digests) if is_ours else frozenset(), ",
        "    return Vouched(frozenset(digests), ",
        f"{UNIT}/test_objects.py::test_a_list_that_a_stranger_signed_or_changed_is_none",
    ),
    Mutant(
        "no secret that others may know",
        "cox/objects/signing.py",
        "    if now.st_mode & _SECRET_MODE:\n",
        "    if False:\n",
        f"{TROUBLES}/test_replayed_objects.py::test_a_secret_that_others_may_know_is_not_used",
    ),
    Mutant(
        "what no other process can find is refused",
        "cox/objects/byvalue.py",
        "        if not (lost := strays(references(result))):\n",
        "        lost = strays(references(result))\n        if True:\n",
        f"{TROUBLES}/test_readable_objects.py::test_what_only_this_process_could_find_is_refused_at_once",
    ),
    Mutant(
        "the checksum of a store file's first bytes",
        "cox/storage/hdf5/writing.py",
        "superblock.sealed(file.id.get_file_image())",
        "file.id.get_file_image()",
        f"{UNIT}/storage/test_superblock.py::test_store_files_are_sealed",
    ),
    # --- Names of strangers
    Mutant(
        "the names of curves are printable",
        "cox/tensorboard/view/names.py",
        '    shown = _cut(printable(name, "_", keep=_KEPT), _TAG_BYTES)\n',
        "    shown = _cut(name, _TAG_BYTES)\n",
        f"{TROUBLES}/test_shown_names.py::test_tags_of_tables_are_printable_and_apart",
    ),
    Mutant(
        "the directory of a table whose name was cut is no other's",
        "cox/collection/dataset.py",
        "{name[:_CUT_BYTES]}%~{",
        "{name[:_CUT_BYTES]}~{",
        f"{TROUBLES}/test_shown_names.py::test_no_name_is_taken_for_one_that_was_cut",
    ),
    Mutant(
        "names in a plot are printable",
        "cox/analysis/plotting.py",
        'shortened(printable(" ".join(text.split())), most)',
        'shortened(" ".join(text.split()), most)',
        f"{TROUBLES}/test_shown_names.py::test_a_plot_shows_names_as_they_are",
    ),
    Mutant(
        "a run that is shown so comes before one whose name begins so",
        "cox/collection/naming.py",
        "    meant = shown_as(wanted, names) or ",
        "    meant = ",
        f"{TROUBLES}/test_shown_names.py::test_a_name_that_is_shown_comes_before_one_that_begins_so",
    ),
    # --- Times
    Mutant(
        "the zone of a time",
        "cox/storage/moments.py",
        "    if zoned:\n        texts.view",
        "    if False:\n        texts.view",
        "tests/spec/test_datetimes.py::test_pandas_gets_its_own_type",
    ),
    Mutant(
        "times of both sorts in one column",
        "cox/storage/moments.py",
        "    return None if len(found) > 1 else found == {True}",
        "    return True in found",
        "tests/spec/test_datetimes.py::test_times_with_and_without_a_zone_in_one_column_stay_what_they_are",
    ),
    Mutant(
        "what is finer than a microsecond",
        "cox/schema.py",
        "    if micros.astype(value.dtype) != value:",
        "    if False:",
        "tests/spec/test_datetimes.py::test_what_is_not_a_time_is_refused_with_the_remedy",
    ),
    Mutant(
        "the fast way's look at a time",
        "cox/storage/journal/compiled.py",
        '            scope[f"T{at}"] = datetime.datetime\n',
        "",
        "tests/spec/test_datetimes.py::test_the_way_that_is_compiled_stores_what_the_general_one_does",
    ),
]
