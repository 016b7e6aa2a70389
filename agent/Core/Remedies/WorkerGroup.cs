using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Settings;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>One [workers:…] section at work: one termination at a time, recovery awaited, a budget.</summary>
internal sealed class WorkerGroup(WorkersSection section)
{
    /// <summary>After a worker has exited the others get this long to go on, before another one may be judged hung.</summary>
    public static readonly TimeSpan Recovery = TimeSpan.FromSeconds(3);

    public WorkersSection Section { get; } = section;

    public SlidingBudget Budget { get; } = new(section.Budget.Count, section.Budget.Period);

    public Termination? InProgress { get; set; }

    /// <summary>Until when the last termination's recovery is awaited.</summary>
    public TimeSpan RecoveringUntil { get; set; }

    /// <summary>Whether the group's standing down was said aloud already.</summary>
    public bool StandDownTold { get; set; }

    public bool IsBusyAt(TimeSpan now) => InProgress is not null || now < RecoveringUntil;
}
