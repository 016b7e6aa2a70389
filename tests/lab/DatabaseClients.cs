using System.Diagnostics;
using System.Globalization;

namespace Sidecar.Lab;

/// <summary>One use of a connection that is over.</summary>
/// <param name="Number">Which connection, from 1.</param>
/// <param name="Sent">When it was begun, on CLOCK_MONOTONIC.</param>
/// <param name="Ended">When it was over, on the same clock.</param>
/// <param name="Error">Class and text of the exception; null where it was answered.</param>
public sealed record ClientUse(int Number, TimeSpan Sent, TimeSpan Ended, string? Error)
{
    /// <summary>How long the client hung in it.</summary>
    public TimeSpan Length => Ended - Sent;
}

/// <summary>
/// A process beside the workers with several connections to the database (<c>users.py</c>). It takes the times itself, so
/// that a test that is late does not measure its own lateness.
/// </summary>
public sealed class DatabaseClients
{
    private readonly int _count;

    private DatabaseClients(ChildProcess process, int count)
    {
        Process = process;
        _count = count;
    }

    /// <summary>The process; its output has a line for each use.</summary>
    public ChildProcess Process { get; }

    /// <summary>CLOCK_MONOTONIC, the clock of the uses.</summary>
    public static TimeSpan Now => TimeSpan.FromSeconds((double)Stopwatch.GetTimestamp() / Stopwatch.Frequency);

    /// <summary>The uses that are over, in the order in which they ended.</summary>
    public IReadOnlyList<ClientUse> Uses => [.. Process.Lines.Select(Parse).OfType<ClientUse>()];

    /// <summary>Connections that rest until <see cref="Use"/>, and then run the statement, all at once.</summary>
    public static Task<DatabaseClients> RestingAsync(TestLab lab, int count, string statement = "SELECT 1", bool driversKeepalive = false) =>
        StartAsync(lab, count, driversKeepalive, "rest", statement);

    /// <summary>Connections in use all the time, each asked again this long after its last answer.</summary>
    public static Task<DatabaseClients> BusyAsync(TestLab lab, int count, TimeSpan every) =>
        StartAsync(lab, count, driversKeepalive: false, "busy", every.TotalSeconds.ToString(CultureInfo.InvariantCulture));

    /// <summary>Connections that wait for notifications: nothing is asked on them, and yet their process waits in each.</summary>
    public static Task<DatabaseClients> ListeningAsync(TestLab lab, int count, bool driversKeepalive = false) =>
        StartAsync(lab, count, driversKeepalive, "listen");

    /// <summary>All connections that rest are used now, by threads of their own.</summary>
    public void Use() => Process.Send(Signal.User1);

    /// <summary>Waits until on each connection a use has ended after a moment, whatever came of it.</summary>
    /// <param name="after">The moment, on CLOCK_MONOTONIC.</param>
    /// <param name="timeout">How long to wait, from now.</param>
    /// <returns>For each connection its first use that ended after that moment, in the order in which they ended.</returns>
    /// <exception cref="TimeoutException">Some still hang; the message says how many.</exception>
    public async Task<IReadOnlyList<ClientUse>> AllEndAsync(TimeSpan after, TimeSpan timeout)
    {
        var waited = Stopwatch.StartNew();
        while (true)
        {
            var ended = Uses.Where(u => u.Ended > after).DistinctBy(u => u.Number).ToList();
            if (ended.Count == _count)
            {
                return ended;
            }

            if (waited.Elapsed > timeout)
            {
                var seconds = string.Join(", ", ended.Select(u => (u.Ended - after).TotalSeconds.ToString("0.0", CultureInfo.InvariantCulture)));
                throw new TimeoutException($"{_count - ended.Count} of {_count} clients still hang after {timeout.TotalSeconds:0} s; those that do not ended after [{seconds}] s");
            }

            await Task.Delay(100);
        }
    }

    private static async Task<DatabaseClients> StartAsync(TestLab lab, int count, bool driversKeepalive, params IEnumerable<string> how)
    {
        var process = lab.StartScript("users.py",
            [lab.Database.Dsn("postgres"), count.ToString(CultureInfo.InvariantCulture), driversKeepalive ? "default" : "off", .. how]);
        await process.WaitForLineAsync(line => line == "connected", TimeSpan.FromSeconds(20));
        return new DatabaseClients(process, count);
    }

    private static ClientUse? Parse(string line)
    {
        var fields = line.Split(' ', 5);
        return fields is [var number, "answered" or "failed", var sent, var ended, var text]
            ? new ClientUse(int.Parse(number, CultureInfo.InvariantCulture), Time(sent), Time(ended), fields[1] == "failed" ? text : null)
            : null;

        static TimeSpan Time(string seconds) => TimeSpan.FromSeconds(double.Parse(seconds, CultureInfo.InvariantCulture));
    }
}
