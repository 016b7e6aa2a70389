namespace Sidecar.Agent.Core.Judgement;

/// <summary>So many in any window of the given length. Handed the time; keeps no clock.</summary>
/// <param name="count">How many.</param>
/// <param name="period">Length of the sliding window.</param>
public sealed class SlidingBudget(int count, TimeSpan period)
{
    private readonly Queue<TimeSpan> _spent = new();

    /// <summary>Whether one more is allowed at <paramref name="now"/>.</summary>
    public bool IsLeftAt(TimeSpan now)
    {
        while (_spent.TryPeek(out var oldest) && now - oldest >= period)
        {
            _spent.Dequeue();
        }

        return _spent.Count < count;
    }

    /// <summary>Notes one. Times must not go back.</summary>
    public void Spend(TimeSpan at) => _spent.Enqueue(at);
}
