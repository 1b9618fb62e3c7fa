"""Every repair, in the order in which they are applied."""

from . import checkpoints, configuration, curves, literals, numpy2, pickling, precision, training, user_dir

ALL = (
    checkpoints.allow_checkpoint_globals,
    checkpoints.explain_unreadable_checkpoints,
    user_dir.explain_user_dir_clash,
    configuration.explain_unknown_options,
    literals.never_evaluate_code,
    numpy2.give_back_old_names_of_numpy,
    numpy2.merge_large_binaries,
    pickling.let_models_be_pickled,
    training.find_what_is_not_finite,
    training.let_models_choose_data_parallelism,
    training.let_processes_differ,
    training.skip_overflow_without_scaler,
    training.write_checkpoints_whole,
    training.give_tasks_back_their_state,
    training.announce_checkpoints,
    training.explain_missing_checkpoints,
    curves.leave_out_values_of_nothing,
    curves.give_curves_their_names,
    precision.keep_missing_gradients,
    precision.train_in_bf16_without_tpu,
)
