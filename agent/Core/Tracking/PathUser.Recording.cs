using Sidecar.Agent.Core.Recordings;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>A user that stands for one of a recording.</summary>
public sealed partial class PathUser
{
    /// <summary>Takes what was known at a step, of the path too; nothing is concluded from it here.</summary>
    internal void Restore(RecordedPath recorded)
    {
        AnswersProbes = recorded.AnswersProbes;
        Path.Restore(recorded);
    }
}
