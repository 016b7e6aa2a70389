using System.Diagnostics;
using System.Globalization;
using Npgsql;

namespace Sidecar.Lab;

/// <summary>
/// A program with an Npgsql pool, as <c>app/idlers.py</c> is one with psycopg2: the pool's connections rest for a while
/// and are then used at the same time. TCP keepalives are off, as is Npgsql's default.
/// </summary>
internal static class NpgsqlIdlers
{
    public static async Task<int> RunAsync(string dsn, int clients, int periods, TimeSpan gap)
    {
        await using var pool = NpgsqlDataSource.Create($"{dsn};Minimum Pool Size={clients};Maximum Pool Size={clients};Connection Idle Lifetime=3600;Command Timeout=0");
        await UseTogetherAsync(pool, clients);
        Console.WriteLine("connected");
        for (var period = 1; period <= periods; period++)
        {
            await Task.Delay(gap);
            var times = await UseTogetherAsync(pool, clients);
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"period {period}: {times.Count} of {clients} served, longest {times.DefaultIfEmpty().Max().TotalSeconds:0.000} s"));
        }

        Console.WriteLine("done");
        return 0;
    }

    private static async Task<List<TimeSpan>> UseTogetherAsync(NpgsqlDataSource pool, int clients)
    {
        var used = await Task.WhenAll(Enumerable.Range(1, clients).Select(client => UseAsync(pool, client)));
        return [.. used.OfType<TimeSpan>()];
    }

    private static async Task<TimeSpan?> UseAsync(NpgsqlDataSource pool, int client)
    {
        var started = Stopwatch.GetTimestamp();
        try
        {
            await using var command = pool.CreateCommand("SELECT pg_sleep(0.5)");
            await command.ExecuteNonQueryAsync();
            return Stopwatch.GetElapsedTime(started);
        }
        catch (NpgsqlException e)
        {
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"client {client} failed after {Stopwatch.GetElapsedTime(started).TotalSeconds:0.000} s: {e.Message}"));
            return null;
        }
    }
}
