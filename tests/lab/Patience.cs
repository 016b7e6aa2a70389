namespace Sidecar.Lab;

/// <summary>
/// How long a test waits for what is to come before it fails. The times in tests are those of an unloaded machine; on a
/// busy one the same things take longer and are no less right.
/// </summary>
public static class Patience
{
    private const int Factor = 4;

    /// <summary>The time to wait where an unloaded machine takes at most this long.</summary>
    public static TimeSpan For(TimeSpan unloaded) => unloaded * Factor;
}
